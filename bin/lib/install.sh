# shellcheck shell=bash
# Finding what a command needs, and installing what is missing with apt-get where that exists.

# What is missing: "package[|package]…: what for" a line, and the commands that say so.
missing=()

# need COMMANDS PACKAGES WHAT: notes the packages unless one of the commands (a|b) is there.
need() {
  local command
  local -a commands
  IFS='|' read -r -a commands <<<"$1"
  for command in "${commands[@]}"; do
    if have "$command"; then return; fi
  done
  missing+=("$2"$'\t'"$3"$'\t'"$1")
}

# install_missing: installs what need() noted; elsewhere than on Debian and Ubuntu, says what to install.
install_missing() {
  ((${#missing[@]})) || return 0
  local line packages what commands list=''
  for line in "${missing[@]}"; do
    IFS=$'\t' read -r packages what commands <<<"$line"
    list+="${list:+, }${commands//|/ or } ($what)"
  done
  have apt-get || die "please install what is missing and start again: $list"

  local -a sudo=()
  if ((EUID != 0)); then
    have sudo || die "missing: $list. There is no sudo: ask the administrator for apt-get install $(apt_names)"
    sudo=(sudo)
    # Without a terminal nobody could type the password: fail at once instead.
    [[ -t 0 ]] || sudo+=(--non-interactive)
  fi
  say "Installing with ${sudo[0]+sudo }apt-get: $list."

  if ! apt_candidates; then
    apt_get update || say "apt-get update failed: going on with the lists that are there."
    apt_candidates || die "apt-get knows no package for: $apt_unknown. Please install it and start again."
  fi
  # The lists may be older than the archive: then they are renewed, once.
  if ! apt_get install "${apt_packages[@]}"; then
    { apt_get update && apt_get install "${apt_packages[@]}"; } || {
      tail -n 20 var/log/install.log >&2
      die "apt-get could not install ${apt_packages[*]} (var/log/install.log)"
    }
  fi
  hash -r
  for line in "${missing[@]}"; do
    IFS=$'\t' read -r packages what commands <<<"$line"
    missing=()
    need "$commands" "$packages" "$what"
    ((${#missing[@]} == 0)) || die "$packages is installed, yet there is no ${commands//|/ or }"
  done
}

# --no-remove: never take away what the machine has (a MySQL server, say) to put ours in its place.
apt_get() {
  local verb=$1
  shift
  local -a options=(--quiet --yes --option DPkg::Lock::Timeout=300)
  [[ $verb != install ]] || options+=(--no-install-recommends --no-remove)
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" "$verb" "$@" >>var/log/install.log 2>&1 </dev/null
}

# apt_candidates: sets apt_packages from what is missing: of alternatives (a|b) the first that apt-get can install.
# A name that ends in ? is a pattern for versioned names (mariadb-server-core-10.6 in Ubuntu 22.04).
apt_candidates() {
  local line packages name found
  local -a names
  apt_packages=() apt_unknown=
  for line in "${missing[@]}"; do
    IFS='|' read -r -a names <<<"${line%%$'\t'*}"
    found=
    for name in "${names[@]}"; do
      if [[ $name == *'?' ]]; then
        name=$(apt-cache search --names-only "^${name%'?'}-[0-9.]+\$" | sort --version-sort | tail -n 1 | cut -d ' ' -f 1)
        [[ -n $name ]] || continue
      fi
      # A package may stand for several: "a b".
      read -r -a packages <<<"$name"
      if apt_knows "${packages[@]}"; then
        apt_packages+=("${packages[@]}")
        found=1
        break
      fi
    done
    [[ -n $found ]] || apt_unknown+="${apt_unknown:+, }${names[0]}"
  done
  [[ -z $apt_unknown ]]
}

apt_knows() {
  local name policy
  for name in "$@"; do
    policy=$(apt-cache policy "$name" 2>/dev/null) || return 1
    [[ $policy == *'  Candidate: '[!\(]* ]] || return 1
  done
}

apt_names() {
  local line
  for line in "${missing[@]}"; do printf '%s ' "${line%%[|$'\t']*}"; done
}

# need_rust: there is a cargo, and it is new enough for the workspace.
need_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
  # rustup puts it there, and only the next login finds it.
  have cargo || PATH="$HOME/.cargo/bin:$PATH"
  local how="install Rust $wanted or newer (https://rustup.rs)"
  have cargo || die "there is no Rust: $how, then start again"
  # A rustup without a toolchain has a cargo that only fails.
  found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
  [[ -n $found ]] || die "cargo does not run: $how, then start again"
  printf '%s\n%s\n' "$wanted" "${found%%-*}" | sort --version-sort --check=quiet ||
    die "Rust $found is too old: $how, then start again"
}

# Cargo.toml's real place is named, so that a checkout that is only linked to shares what is built.
build_services() {
  local real
  real=$(dirname "$(realpath Cargo.toml)")
  local what=(--release --package=gateway --package=memcache --package=recorder)
  # In one with the tests: by themselves, they would be built with other features of their dependencies.
  [[ $PIXCACHE_PROFILE == release ]] || what=(--workspace --all-targets)
  # Cargo ends with the command that it works for.
  setpriv --pdeathsig TERM cargo build --locked --manifest-path "$real/Cargo.toml" --target-dir "$real/target" "${what[@]}"
}

# need_servers: what pixcache runs on, as far as the user has no servers of their own.
need_servers() {
  need curl 'curl ca-certificates' 'asks the gateway whether it is ready'
  need flock util-linux 'locks'
  need setpriv util-linux 'ends a process with its parent'
  [[ -n ${NATS_URL-} ]] || need nats-server nats-server 'the message bus'
  if [[ -z ${DATABASE_URL-} ]]; then
    need mariadbd 'mariadb-server-core|mariadb-server-core?|mariadb-server' 'the database'
    need my_print_defaults 'mariadb-client-core|mariadb-client-core?|mariadb-client' 'sets up the database'
  else
    need 'mariadb|mysql' 'mariadb-client-core|mariadb-client-core?|mariadb-client' 'makes the accounts in your database'
  fi
}

need_runner() { need 'foreman|honcho' ruby-foreman 'starts the Procfile'; }
