# fish completion for wmgwd. What there is to complete comes from `wmgwd --help`, so that it fits the version.

function __wmgwd_complete
    set -l typed (commandline -opc)
    set -l current (commandline -ct)
    set -l program $typed[1]
    set -l help ($program --help 2>/dev/null)
    set -l commands (printf '%s\n' $help | sed -n '/^$/q; s/^\(Usage:\)\{0,1\} *wmgwd \([a-z][a-z-]*\).*/\2/p')
    if contains -- "$typed[2]" $commands
        set help ($program $typed[2] --help 2>/dev/null)
    else if test (count $typed) -eq 1
        printf '%s\tcommand\n' $commands
    end
    # `--option=value` is one word; else the value follows its option.
    set -l option
    set -l prefix
    if string match -q -- '-*=*' $current
        set option (string split -m 1 = -- $current)[1]
        set prefix "$option="
    else if test (count $typed) -gt 1
        set option $typed[-1]
    end
    string match -qr -- '^-[^-]' $option; and set option -$option
    if string match -q -- '--*' $option
        set -l values (string replace -rf -- "^  $option +([a-z]+) or ([a-z]+):.*" '$1 $2' $help)
        # Only `=` gives a switch a value.
        if test -n "$values"; and test "$values" != 'true false' -o -n "$prefix"
            printf "$prefix%s\n" (string split ' ' -- $values)
            return
        else if test -z "$values" -a "$option" != --help; and string match -qr -- "^  $option " $help
            # An option that takes a text: perhaps a file.
            __fish_complete_path (string replace -- "$prefix" '' $current)
            return
        end
    end
    # The names of the nodes: those that etcd has, with the options of the service where they can be read.
    if contains -- "$typed[2]" drain undrain; and not string match -q -- '-*' $current
        set -l file
        test -r /etc/default/wmgwd; and set file --env-file /etc/default/wmgwd
        $program status --json $file 2>/dev/null | grep -o '"name":"[^"\\]*"' | string split -f 4 '"'
    end
    string replace -rf -- '^  (?:-[a-z], )?(--[a-z-]+) *(.*)' '$1\t$2' $help | string replace -- '\t' \t
end

complete -c wmgwd -f -a '(__wmgwd_complete)'
