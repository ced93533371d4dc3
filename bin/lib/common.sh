# shellcheck shell=bash
# What all commands in bin/ share: how to speak, and how to know one's own processes.
# Sourced with the checkout as the current directory; everything that runs lives in its var/.

set -o errexit -o nounset -o pipefail

# Debian keeps server programs where an ordinary user's PATH does not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Held shared by each running service, for as long as the process lives.
services_lock=var/run/services.lock
# Held by the wrapper of each server (bin/serve), likewise.
nats_lock=var/run/nats.lock
mariadb_lock=var/run/mariadb.lock

# Where the programs are. The tests take them as they are built for tests, which is not optimised.
# shellcheck disable=SC2034  # Read by the commands.
case ${PIXCACHE_PROFILE:=release} in
  release) built=target/release ;;
  dev) built=target/debug ;;
  *)
    printf 'PIXCACHE_PROFILE must be release or dev, got %s\n' "$PIXCACHE_PROFILE" >&2
    exit 2
    ;;
esac

say() { printf '%s\n' "$*" >&2; }

die() {
  printf 'bin/%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# What runs keeps its data, sockets and passwords here: nobody else's business.
make_var() {
  local folder
  for folder in var var/run var/log; do
    # Another command may be making it at this moment.
    [[ -d $folder ]] || mkdir -m 700 "$folder" 2>/dev/null || [[ -d $folder ]] || die "$(not_ours "$folder")"
    [[ -w $folder ]] || die "$(not_ours "$folder")"
  done
}

# not_ours FILE: the sentence about a file or folder in the checkout that this account can't make, read or write.
not_ours() {
  local user file=$1
  user=$(id -un)
  [[ -e $file ]] || file=$(dirname "$file")
  if [[ -e $1 && -w $1 && -r $1 ]]; then
    printf '%s must be a folder: remove the file %s and start again' "$1" "$PWD/$1"
  elif [[ $(stat --format %U "$file") == "$user" ]]; then
    printf '%s must be writable for %s: chmod -R u+rwX %q, if its file system can be written at all' "$1" "$user" "$PWD/${file#./}"
  else
    printf '%s must be writable for %s, and %s belongs to %s: start as %s, or chown -R %s %q' "$1" "$user" "$PWD/${file#./}" \
      "$(stat --format %U "$file")" "$(stat --format %U "$file")" "$user" "$PWD/${file#./}"
  fi
}

# identify PID: names a process for good, in $identity: its pid, the moment it started and the boot that was in. A pid alone
# may belong to somebody else by the time that it is read back. Fails when there is no such process; a zombie is none.
# Without a fork: what waits asks it many times a second.
identify() {
  local stat=''
  # Not $(<…): where there is no such file, bash 5.2 ends the whole script, whatever stands behind it.
  { read -r -d '' stat <"/proc/$1/stat" || [[ -n $stat ]]; } 2>/dev/null || return 1
  # The second field is the program's name in parentheses and may contain both spaces and parentheses.
  local -a fields
  read -r -a fields <<<"${stat##*) }"
  [[ ${fields[0]} != [ZX] ]] || return 1
  local boot
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=-
  identity="$1 ${fields[19]} $boot"
}

# remember NAME PID [WORD]: notes which process plays a role, and a word about it.
remember() {
  local identity
  identify "$2" || return 1
  printf '%s\n%s\n' "$identity" "${3-}" >"var/run/$1.pid.new"
  mv "var/run/$1.pid.new" "var/run/$1.pid"
}

# recall NAME: prints the pid of the process that plays the role, or fails if it is gone.
recall() {
  local line identity
  { read -r line <"var/run/$1.pid"; } 2>/dev/null || return 1
  identify "${line%% *}" && [[ $identity == "$line" ]] || return 1
  printf '%s\n' "${line%% *}"
}

# recall_word NAME: the word that was noted with the process.
recall_word() {
  [[ ! -f var/run/$1.pid ]] || sed -n 2p "var/run/$1.pid"
}

# within SECONDS COMMAND…: waits until the command succeeds, or fails when the time is up.
within() {
  local deadline=$((${EPOCHREALTIME//[!0-9]/} + $1 * 1000000))
  shift
  until "$@"; do
    ((${EPOCHREALTIME//[!0-9]/} < deadline)) || return 1
    sleep 0.05
  done
}

gone() {
  local identity
  ! identify "$1"
}

# end PID SIGNAL: asks a process of ours to leave, and makes it leave after five seconds.
end() {
  kill -s "$2" "$1" 2>/dev/null || return 0
  within 5 gone "$1" || { kill -s KILL "$1" 2>/dev/null && within 5 gone "$1"; }
}

held() { ! flock --shared --nonblock "$1" true; }

# Whether anything of this checkout runs, however it was started. The services hold their lock shared, so only an
# exclusive try tells.
running() {
  ! flock --exclusive --nonblock "$services_lock" true || held "$nats_lock" || held "$mariadb_lock"
}

idle() { ! running; }

# port_free PORT: nobody answers there on loopback.
port_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
