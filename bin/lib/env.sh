# shellcheck shell=bash
# Reading and making .env, the one file of settings: KEY=value lines, comments on lines of their own, no spaces and no
# quotes needed, because foreman, honcho and overmind each read it with rules of their own.

# load_env: exports what .env says and the environment does not.
load_env() {
  local line key value
  [[ -f .env ]] || return 0
  [[ -r .env ]] || die ".env must be readable for $(id -un), and belongs to $(stat --format %U .env): run this as that user"
  local -A seen=()
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^([A-Za-z_][A-Za-z_0-9]*)=(.*)$ ]] || continue
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    [[ $value != *$'\r' ]] || die ".env must have lines that end as on Unix, and that of $key ends with a carriage return"
    [[ ! -v seen[$key] ]] || die ".env must have $key once, and has it twice: each Procfile runner would take another one"
    seen[$key]=1
    if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
    [[ -v $key ]] || export "$key=$value"
  done <.env
}

# is_secret NAME: whether a variable of this name holds a secret, of pixcache or of somebody else.
is_secret() {
  [[ $1 =~ (PASSWORD|PASSWD|_PWD$|TOKEN|SECRET|CREDENTIAL|_KEY$|_KEY_ID$|DATABASE_URL$|^AWS_) ]]
}

# may_know ROLE NAME: whether a process of the Procfile needs this secret, as in the units of deploy/systemd.
may_know() {
  case $1 in
    gateway) [[ $2 =~ ^(NATS_GATEWAY_([A-Z]+_)?PASSWORD|GATEWAY_DATABASE_URL|ADMIN_TOKEN|AWS_[A-Z_]+)$ ]] ;;
    memcache) [[ $2 =~ ^NATS_MEMCACHE_([A-Z]+_)?PASSWORD$ ]] ;;
    recorder) [[ $2 =~ ^(NATS_RECORDER_([A-Z]+_)?PASSWORD|NATS_SETUP_PASSWORD|RECORDER_DATABASE_URL|MIGRATION_DATABASE_URL)$ ]] ;;
    # nats.conf names all of its users.
    nats) [[ $2 =~ ^NATS_([A-Z]+_)+PASSWORD$ ]] ;;
    *) false ;;
  esac
}

# forget_secrets_but ROLE: unsets all other secrets.
forget_secrets_but() {
  local name
  for name in $(compgen -e); do
    if is_secret "$name" && ! may_know "$1" "$name"; then unset "$name"; fi
  done
}

# hide_secrets_but ROLE: keeps all other secrets to this script: what it starts does not get them.
hide_secrets_but() {
  local name
  for name in $(compgen -e); do
    if is_secret "$name" && ! may_know "$1" "$name"; then export -n "${name?}"; fi
  done
}

# hide_what_env_says: keeps the secrets to this script that stand in .env with the same value: runners read it themselves.
hide_what_env_says() {
  local line key value
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^([A-Za-z_][A-Za-z_0-9]*)=(.*)$ ]] || continue
    key=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    if is_secret "$key" && [[ ${!key-} == "$value" ]]; then export -n "${key?}"; fi
  done <.env
}

# The lines of .env while it is made.
env_lines=()

env_get() {
  local line
  for line in "${env_lines[@]}"; do
    [[ $line != "$1="* ]] || { printf '%s' "${line#*=}"; return; }
  done
}

env_put() {
  local i
  export "$1=$2"
  for i in "${!env_lines[@]}"; do
    [[ ${env_lines[i]} != "$1="* ]] || { env_lines[i]="$1=$2"; return; }
  done
  env_lines+=("$1=$2")
}

env_remove() {
  local line
  local -a lines=()
  for line in "${env_lines[@]}"; do [[ $line == "$1="* ]] || lines+=("$line"); done
  env_lines=("${lines[@]}")
}

# What a start may be given once and keeps, ports apart.
given_once=(ALLOWED_HOSTS ADMIN_TOKEN PRIVATE NATS_URL DATABASE_URL NATS_HOST NATS_STORE_DIR)
declare -A env_before=()

# remember_env: notes what .env says before a start changes it.
remember_env() {
  local key
  [[ ! -f .env ]] || mapfile -t env_lines <.env
  for key in "${given_once[@]}" {GATEWAY,RECORDER,MIGRATION}_DATABASE_URL; do env_before[$key]=$(env_get "$key"); done
}

# forget_given: after a start that failed, .env says again what it said before of all that was given for it.
forget_given() {
  local key account
  local -a forgotten=()
  mapfile -t env_lines <.env
  for key in "${given_once[@]}"; do
    # A default that was written down is none that was given.
    [[ $(env_get "$key") != "${env_before[$key]}" && -v given[$key] ]] || continue
    forgotten+=("$key")
    env_back "$key"
    if [[ $key == DATABASE_URL ]]; then
      for account in {GATEWAY,RECORDER,MIGRATION}_DATABASE_URL; do env_back "$account"; done
    fi
  done
  ((${#forgotten[@]})) || return 0
  write_env
  say ".env does not keep what was given for this start: ${forgotten[*]}."
}

env_back() {
  if [[ -n ${env_before[$1]} ]]; then env_put "$1" "${env_before[$1]}"; else env_remove "$1"; fi
}

# note_given: notes which settings the environment has; before .env is loaded.
declare -A given=()
note_given() {
  local key
  for key in PORT NATS_PORT DB_PORT "${given_once[@]}"; do [[ -z ${!key-} ]] || given[$key]=${!key}; done
}

# given_otherwise: prints the settings that the environment gives otherwise than .env, which is what runs.
given_otherwise() {
  local key kept
  local -a others=()
  mapfile -t env_lines <.env
  for key in "${!given[@]}"; do
    kept=$(env_get "$key")
    if [[ $kept =~ ^\"(.*)\"$ || $kept =~ ^\'(.*)\'$ ]]; then kept=${BASH_REMATCH[1]}; fi
    [[ ${given[$key]} == "$kept" ]] || others+=("$key")
  done
  printf '%s' "${others[*]}"
}

# env_keep KEY DEFAULT: a value given in the environment is remembered, else the one in .env stays, else the default is
# taken. (A runner lets .env win over the environment, so what is given there once has to be written down.)
env_keep() {
  local value=${!1-}
  [[ -n $value ]] || value=$(env_get "$1")
  env_put "$1" "${value:-$2}"
}

# Letters and digits beginning with a letter: nats.conf, the shell, SQL, URLs and every runner read such a password
# alike, and none takes it for a number.
password() { printf 'p%s' "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')"; }

# The ports that this call has settled on already: two roles must not be given the same.
taken_ports=()
# By setting: the port that was asked for, and whether none was kept yet; make_env may be called again for the same start.
declare -A asked_ports=() first_ports=()

# The line above a port of .env that is borrowed: another program has the one that is kept. It is a comment, so that every
# runner reads the port in use only; without it, or with another port below it, that port is the one that is kept.
borrowed_line='^# ([A-Z_]+): ([0-9]+) is kept; ([0-9]+) is borrowed for this run\.$'

# env_kept KEY: prints the port that is kept, whether or not another one is in use.
env_kept() {
  local line port
  port=$(env_get "$1")
  for line in "${env_lines[@]}"; do
    if [[ $line =~ $borrowed_line && ${BASH_REMATCH[1]} == "$1" && ${BASH_REMATCH[3]} == "$port" ]]; then
      port=${BASH_REMATCH[2]}
    fi
  done
  printf '%s' "$port"
}

# env_borrow KEY [KEPT]: notes above the port of KEY that it is borrowed, and which one is kept; without KEPT, that it is
# its own.
env_borrow() {
  local line
  local -a lines=()
  for line in "${env_lines[@]}"; do
    [[ ! $line =~ $borrowed_line || ${BASH_REMATCH[1]} != "$1" ]] || continue
    if [[ -n ${2-} && $line == "$1="* ]]; then lines+=("# $1: $2 is kept; ${line#*=} is borrowed for this run."); fi
    lines+=("$line")
  done
  env_lines=("${lines[@]}")
}

# env_port KEY FIRST WHAT: takes the port that is kept; at the very first start the next free one from FIRST on, which is
# kept from then on. It looks at every start, because another program may have taken the port since: then a free one is
# borrowed for this run. One asked for in the environment is not exchanged.
env_port() {
  local asked=${!1-} in_use kept port borrowed=''
  in_use=$(env_get "$1")
  kept=$(env_kept "$1")
  # The values of .env are in the environment as well.
  [[ $asked != "$in_use" ]] || asked=${asked_ports[$1]-}
  asked_ports[$1]=$asked
  [[ -n $kept ]] || first_ports[$1]=1
  [[ -z ${first_ports[$1]-} ]] || kept=''
  port=${asked:-${kept:-${in_use:-$2}}}
  if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then die "$1 must be a port (1 to 65535), got '$port'"; fi
  if ! usable_port "$port"; then
    [[ -z $asked ]] || die "port $port ($1, $3) is taken by another program: stop that program, or ask for another port ($1=… bin/run)"
    local taken=$port
    port=$2
    until usable_port "$port"; do port=$((port + 1)); done
    if [[ -n $kept ]]; then
      borrowed=$kept
      say "Port $taken is taken by another program: $3 borrows $port for this run; the next start tries $taken again."
    else
      say "Port $taken is taken by another program: $3 gets $port."
    fi
  fi
  taken_ports+=("$port")
  env_put "$1" "$port"
  env_borrow "$1" "$borrowed"
}

# return_ports: after a run, .env names the kept ports again, for a foreman start that is typed directly.
return_ports() {
  local line key kept
  grep --quiet --extended-regexp "$borrowed_line" .env 2>/dev/null || return 0
  mapfile -t env_lines <.env
  for line in "${env_lines[@]}"; do
    [[ $line =~ $borrowed_line ]] || continue
    key=${BASH_REMATCH[1]}
    kept=$(env_kept "$key")
    [[ $key != DB_PORT ]] || env_lines=("${env_lines[@]/@127.0.0.1:$(env_get DB_PORT)\//@127.0.0.1:$kept\/}")
    env_put "$key" "$kept"
    [[ $key != PORT ]] || env_put OVERMIND_PORT "$kept"
    env_borrow "$key"
  done
  write_env
}

write_env() {
  [[ -w . ]] || die "$(not_ours .env)"
  (umask 077 && printf '%s\n' "${env_lines[@]}" >.env.new)
  mv .env.new .env
}

usable_port() {
  local other
  for other in "${taken_ports[@]}"; do [[ $other != "$1" ]] || return 1; done
  port_free "$1"
}

# mysql_url_parts URL: sets url_user, url_password, url_host, url_port, url_database and url_query.
mysql_url_parts() {
  [[ $1 =~ ^(mysql|mariadb)://([^:@/]*)(:([^@/]*))?@(\[[0-9A-Fa-f:.]+\]|[^:@/?]+)(:([0-9]+))?(/([^?]*))?(\?.*)?$ ]] || return 1
  url_user=$(url_decode "${BASH_REMATCH[2]}") url_password=$(url_decode "${BASH_REMATCH[4]}")
  url_host=${BASH_REMATCH[5]} url_port=${BASH_REMATCH[7]:-3306}
  url_database=${BASH_REMATCH[9]} url_query=${BASH_REMATCH[10]}
}

url_decode() { printf '%b' "$(sed 's/\\/\\\\/g; s/%\([0-9A-Fa-f][0-9A-Fa-f]\)/\\x\1/g' <<<"$1")"; }

# accounts_sql: what makes the database and the three accounts as the services' URLs name them, whether they exist
# already or not; .env is the truth about passwords. The recorder grants the other two what they need on their tables.
accounts_sql() {
  local key
  for key in MIGRATION_DATABASE_URL GATEWAY_DATABASE_URL RECORDER_DATABASE_URL; do
    mysql_url_parts "${!key-}" || die "$key is not a mysql:// URL: it is '${!key-}'"
    [[ $url_user$url_password$url_database =~ ^[A-Za-z0-9_]+$ ]] ||
      die "$key: user, password and database may have letters, digits and _ only"
    if [[ $key == MIGRATION_DATABASE_URL ]]; then
      printf 'CREATE DATABASE IF NOT EXISTS %s CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;\n' "$url_database"
    fi
    printf "CREATE USER IF NOT EXISTS '%s'@'%%' IDENTIFIED BY '%s';\n" "$url_user" "$url_password"
    printf "ALTER USER '%s'@'%%' IDENTIFIED BY '%s';\n" "$url_user" "$url_password"
    if [[ $key == MIGRATION_DATABASE_URL ]]; then
      # In a GRANT the database is a pattern, where _ stands for any character.
      printf "GRANT ALL PRIVILEGES ON \`%s\`.* TO '%s'@'%%' WITH GRANT OPTION;\n" "${url_database//_/\\_}" "$url_user"
    fi
  done
}

# env_account KEY USER: the URL of one account, at the server that .env names now, with the password it had.
env_account() {
  local value=${!1-}
  [[ -n $value ]] || value=$(env_get "$1")
  if [[ -z $value ]] || ! mysql_url_parts "$value" || [[ -z $url_password ]]; then url_password=$(password); fi
  env_put "$1" "mysql://$2:$url_password@$3"
}

# make_env: writes .env at the first start, and afterwards what changed: a port that is borrowed or kept again, a key that
# is new, a value from the environment.
make_env() {
  taken_ports=()
  if [[ -f .env ]]; then
    mapfile -t env_lines <.env
  else
    env_lines=(
      '# The settings of this checkout, made by bin/run: passwords, ports, accounts. Not for a repository.'
      '# One KEY=value a line without quotes, comments on lines of their own; docs/settings.md lists all settings.'
    )
  fi

  # The first process of the Procfile is the gateway, and gets the very number.
  env_port PORT 5000 'the gateway'
  env_put OVERMIND_PORT "$(env_get PORT)"

  # Names under which others come to this gateway, if any: besides addresses and localhost.
  env_keep ALLOWED_HOSTS ''

  # Who may change or see something, and servers of the user's own: what was given once stays.
  local key value
  for key in ADMIN_TOKEN PRIVATE NATS_URL DATABASE_URL; do
    value=${!key-}
    [[ -n $value ]] || value=$(env_get "$key")
    # Each Procfile runner would read another value out of quotes, spaces, # and $.
    [[ $key != ADMIN_TOKEN || $value =~ ^[A-Za-z0-9._~+/=:@-]*$ ]] ||
      die "ADMIN_TOKEN must be letters, digits and ._~+/=:@- to stand in .env, such as that of openssl rand -hex 32"
    [[ -z $value ]] || env_put "$key" "$value"
  done

  # Not the standard ports: a nats-server or MariaDB that the machine starts at boot keeps those.
  if [[ -z ${NATS_URL-} ]]; then
    env_keep NATS_HOST 127.0.0.1
    env_port NATS_PORT 14222 'nats-server'
    env_keep NATS_STORE_DIR var/nats
  fi
  for key in GATEWAY MEMCACHE RECORDER SETUP OPERATOR; do env_keep "NATS_${key}_PASSWORD" "$(password)"; done

  local server
  if [[ -z ${DATABASE_URL-} ]]; then
    env_port DB_PORT 13306 'MariaDB'
    server="127.0.0.1:$DB_PORT/pixcache"
  else
    mysql_url_parts "$DATABASE_URL" || die "DATABASE_URL is not of the form mysql://user:password@host:port"
    server="$url_host:$url_port/${url_database:-pixcache}$url_query"
  fi
  env_account GATEWAY_DATABASE_URL pixcache_gateway "$server"
  env_account RECORDER_DATABASE_URL pixcache_recorder "$server"
  env_account MIGRATION_DATABASE_URL pixcache_migration "$server"

  write_env
}
