# bash completion for wmgwd. What there is to complete comes from `wmgwd --help`, so that it fits the version.

_wmgwd() {
	local cur=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} command='' option='' word help
	# bash makes `--option=value` three words.
	if [ "$cur" = = ]; then
		cur='' option=${COMP_WORDS[COMP_CWORD - 1]}
	elif [ "$COMP_CWORD" -gt 1 ]; then
		option=${COMP_WORDS[COMP_CWORD - 1]}
		[ "$option" != = ] || option=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	help=$("$program" --help 2>/dev/null) || return 0
	local commands
	commands=$(sed -n '/^$/q; s/^\(Usage:\)\{0,1\} *wmgwd \([a-z][a-z-]*\).*/\2/p' <<<"$help")
	word=${COMP_WORDS[1]-}
	if [ "$COMP_CWORD" -gt 1 ] && grep -qxF -- "$word" <<<"$commands"; then
		command=$word
		help=$("$program" "$command" --help 2>/dev/null) || return 0
	fi
	# One dash is as good as two.
	case $option in
	--*) ;;
	-*) option=-$option ;;
	*) option='' ;;
	esac
	local values
	values=$(sed -n "s/^  $option  *\([a-z]*\) or \([a-z]*\):.*/\1 \2/p" <<<"$help")
	if [ -n "$option" ] && [ "$values" = 'true false' ]; then
		# Only `=` gives a switch a value.
		[ "${COMP_WORDS[COMP_CWORD]}" = = ] || [ "${COMP_WORDS[COMP_CWORD - 1]}" = = ] || values=''
	elif [ -n "$option" ] && [ -z "$values" ] && [ "$option" != --help ] &&
		grep -q -- "^  $option " <<<"$help"; then
		# An option that takes a text: perhaps a file.
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return 0
	fi
	if [ -n "$values" ]; then
		mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")
		return 0
	fi
	local words='' file=/etc/default/wmgwd
	case $command:$cur in
	drain:[!-]* | undrain:[!-]* | drain: | undrain:)
		# The names of the nodes: those that etcd has, with the options of the service where they can be read.
		words=$("$program" status --json $([ ! -r "$file" ] || echo --env-file "$file") 2>/dev/null |
			grep -o '"name":"[^"\\]*"' | cut -d '"' -f 4)
		;;
	esac
	[ "$COMP_CWORD" -gt 1 ] || words=$commands
	words+=" $(sed -n 's/^  \(-[a-z], \)\{0,1\}\(--[a-z-]*\).*/\2/p' <<<"$help")"
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}

complete -F _wmgwd wmgwd
