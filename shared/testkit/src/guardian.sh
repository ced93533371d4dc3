# Starts a server, signals it on request, and outlives the test that asked for it only as long as it
# takes to end the server and to remove its folder.
#
# Stdin is a pipe from the test process. The kernel closes it however that process ends, also by
# SIGKILL, which no destructor and no exit handler would see.
#
# usage: sh -c "$script" guardian FOLDER PROGRAM [ARGUMENT…]
folder=$1
shift
server=

# The server is a child that only this shell waits for, so its pid is its own until `wait` returns.
end() {
    [ -n "$server" ] || return 0
    kill -CONT "$server"
    kill -"$1" "$server"
    # The shell would say "Killed" in the middle of the test's output.
    wait "$server" 2>/dev/null
    server=
}

while read -r order; do
    case $order in
    start)
        "$@" </dev/null >>"$folder/log" 2>&1 &
        server=$!
        echo "$server" >"$folder/pid"
        ;;
    STOP | CONT) kill -"$order" "$server" ;;
    *) end "$order" ;;
    esac
    echo "$order done"
done

# What the server has started: nginx's workers would outlive a master that is killed.
children=
[ -z "$server" ] || read -r children 2>/dev/null <"/proc/$server/task/$server/children"
end KILL
# shellcheck disable=SC2086  # A word each.
[ -z "$children" ] || kill -KILL $children 2>/dev/null
rm -rf "$folder"
