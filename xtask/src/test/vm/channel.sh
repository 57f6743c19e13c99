# By which the test commands this machine: a line `MARK COMMAND` comes in by a serial port
# of virtio's, and out goes what the command prints, and then `MARK STATUS`.
# Its number depends on which devices there are.
set -- /dev/vport*p1
exec 3<>"$1" || exit 1
echo ready >&3
while IFS=' ' read -r -u 3 mark command; do
    {
        bash -c "$command" </dev/null 2>&1 3>&-
        printf '\n%s %d\n' "$mark" $?
    } >&3
done
