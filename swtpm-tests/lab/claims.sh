# What the scripts of this folder share. Each says what holds; the first that does not ends it, with what was said last and every
# log of the folder.

claim() { # claim WHAT COMMAND...
    local what=$1
    shift
    "$@" >output 2>&1 </dev/null || not "$what"
    echo "$what"
}
refused() { # refused WHAT WHY COMMAND...
    local what=$1 why=$2
    shift 2
    if "$@" >output 2>&1 </dev/null || ! grep -q "$why" output; then
        not "$what"
    fi
    echo "$what"
}
not() {
    echo "NOT: $1: $(tail -n 20 output ./*.log)"
    exit 1
}
as() { # as USER COMMAND... His group has the same number or name, or is nogroup.
    local user=$1 group=$1
    shift
    [ "$user" != nobody ] || group=nogroup
    setpriv --reuid "$user" --regid "$group" --clear-groups "$@"
}
answers_with() { # answers_with PIN FILE: makes a pinentry that types this PIN, and keeps in FILE.asked what it was told to say.
    cat >"$2" <<END
#!/bin/sh
echo "OK Pleased to meet you"
while read -r line; do
    case \$line in
    SETDESC*) { printf '%s\n' "\$line" >>"\$0.asked"; } 2>/dev/null; echo OK ;;
    GETPIN) printf 'D %s\nOK\n' $1 ;;
    *) echo OK ;;
    esac
done
END
    chmod 755 "$2"
}
