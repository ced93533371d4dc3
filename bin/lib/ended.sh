# shellcheck shell=bash
# The log of a Procfile runner, and which process's end made it stop everything.

log=var/log/run.log

# A run's first line in the log. Lines of processes begin with the time and a name.
run_began='^([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}) bin/run starts (foreman|honcho)$'
# How foreman and honcho say that a process has ended, or that they were asked to stop.
process_ended='^([0-9:]{8}) +([a-z]+)\.1 +\| (exited with code|terminated by) ([0-9A-Z]+)$'
process_stopped='^([0-9:]{8}) +system +\| ([a-z]+)\.1 stopped \(rc=(-?)([0-9]+)\)$'
asked_to_stop='^[0-9:]{8} +system +\| SIG[A-Z]+ received'

# begin_log RUNNER: notes that a run begins, and sets $log_start to where its lines begin.
begin_log() {
  # One log before this one is kept.
  if [[ -f $log ]] && (($(stat --format %s "$log") > 10000000)); then mv "$log" "$log.1"; fi
  printf '%(%F %T)T bin/run starts %s\n' -1 "$1" >>"$log"
  # shellcheck disable=SC2034  # bin/run reads it.
  log_start=$(stat --format %s "$log")
}

# log_lines FROM: the log from a byte on, without colours. It must be read to its end: a reader that ends early ends this
# with SIGPIPE, and a line that was found seems not to be there.
log_lines() { tail --bytes=+$(($1 + 1)) "$log" | sed 's/\x1b\[[0-9;]*m//g'; }

# log_has FROM PATTERN: whether a line of the log has the pattern, in letters of any case.
log_has() { [[ $(log_lines "$1" | grep --text --ignore-case --extended-regexp --count -- "$2") != 0 ]]; }

ended='' ended_how='' ended_at=''

# find_end FROM: finds the process whose end stopped a run: the first one, unless the runner had been asked to stop before.
# Sets $ended to its name, $ended_how and $ended_at.
find_end() {
  local line
  ended='' ended_how='' ended_at=''
  line=$(log_lines "$1" | grep --text --extended-regexp "$process_ended|$process_stopped|$asked_to_stop") || return 1
  line=${line%%$'\n'*}
  if [[ $line =~ $process_ended ]]; then
    ended_how="ended with exit code ${BASH_REMATCH[4]}"
    [[ ${BASH_REMATCH[3]} == exited* ]] || ended_how="was killed by ${BASH_REMATCH[4]}"
  elif [[ $line =~ $process_stopped ]]; then
    ended_how="ended with exit code ${BASH_REMATCH[4]}"
    [[ -z ${BASH_REMATCH[3]} ]] || ended_how="was killed by SIG$(kill -l "${BASH_REMATCH[4]}")"
  else
    return 1
  fi
  ended_at=${BASH_REMATCH[1]} ended=${BASH_REMATCH[2]}
}

# last_words FROM: of a process that ended with an exit code, the sentence with which its wrapper or itself gave up.
last_words() {
  [[ $ended_how == 'ended with'* ]] || return 0
  log_lines "$1" | grep --text --extended-regexp "^[0-9:]{8} +$ended\.1 +\| |^[0-9:]{8} +\| " |
    grep --text --extended-regexp --invert-match "$process_ended" | sed -E 's/^[0-9:]{8} +[a-z.1]* *\| //' |
    grep --text --extended-regexp --only-matching \
      "bin/serve: .*|[Ee]rror: .*|[a-z]+ (ends|can't start): .*|^(gateway|memcache|recorder): .*" | tail -n 1 || true
}

# why_all_ended FROM RUNNER: the sentence about it, after find_end.
why_all_ended() {
  local words
  words=$(last_words "$1")
  printf '%s %s at %s%s, and %s stops everything when one process ends.' "$ended" "$ended_how" "$ended_at" \
    "${words:+ (\"$words\")}" "$2"
  [[ $ended_how != *SIGKILL ]] ||
    printf ' SIGKILL comes from a person, or from the kernel when memory is short (journalctl -k names it then).'
}

# say_how_last_run_ended [process]: of the last run of bin/run here, if it was not stopped. Its note stays until the next
# start. With "process", only if it was the end of a process.
say_how_last_run_ended() {
  local note boot line from began runner
  { read -r note <var/run/run.pid; } 2>/dev/null && [[ -f $log ]] || return 0
  line=$(grep --text --byte-offset --extended-regexp "$run_began" "$log" | tail -n 1) || return 0
  from=${line%%:*} line=${line#*:}
  [[ $line =~ $run_began ]] || return 0
  began=${BASH_REMATCH[1]} runner=${BASH_REMATCH[2]}
  if find_end "$from"; then
    say "The run that began at $began ended by itself: $(why_all_ended "$from" "$runner") $log has all of it."
    return
  fi
  [[ ${1-} != process ]] || return 0
  # Neither an end nor a request in the log, and the machine is still up: the runner had no chance to write one.
  { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || return 0
  if [[ ${note##* } == "$boot" ]] && ! log_has "$from" "$asked_to_stop"; then
    say "The run that began at $began ended by itself: $runner was killed before it could write why, and the kernel then ended what it had started."
  fi
}
