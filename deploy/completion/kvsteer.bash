# bash completion for kvsteer; made by: kvsteer completion bash
_kvsteer()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} object='' verb='' words='' i

	COMPREPLY=()
	# A pod's name holds colons, at which bash would cut it.
	declare -F _get_comp_words_by_ref >/dev/null && _get_comp_words_by_ref -n : cur prev
	case $prev in
	--control|--template|--tokenizer-config|--cache-dir|--ca-file) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	-m|--model|-n|--lines|--set|--repeat|--pod|--endpoint|--revision) return ;;
	esac
	for ((i = 1; i < COMP_CWORD; i++)); do
		case ${COMP_WORDS[i]} in
		--control|-m|--model|-n|--lines|--set|--template|--tokenizer-config|--api|--repeat|--cache-dir|--pod|--endpoint|--revision|--ca-file) ((i++)) ;;
		-*) ;;
		*) if [ -z "$object" ]; then object=${COMP_WORDS[i]}; elif [ -z "$verb" ]; then verb=${COMP_WORDS[i]}; fi ;;
		esac
	done
	case $cur in
	-*) object=-; verb=; words='--control --json --model --lines --rst --set --template --tokenizer-config --api --repeat --time --cache-dir --decode --special --tokens --pod --endpoint --revision --ca-file --help --version' ;;
	esac
	case $object/$verb in
	/) words='status pod decision index config flow model doctor bpf reload drain version completion' ;;
	pod/) words='list show drain undrain' ;;
	pod/show) words=$(kvsteer pod list 2>/dev/null | awk 'NR > 1 && $1 !~ /:$/ { print $1 }') ;;
	pod/drain) words=$(kvsteer pod list 2>/dev/null | awk 'NR > 1 && $1 !~ /:$/ { print $1 }') ;;
	pod/undrain) words=$(kvsteer pod list 2>/dev/null | awk 'NR > 1 && $1 !~ /:$/ { print $1 }') ;;
	decision/) words='tail show' ;;
	index/) words='stats lookup' ;;
	index/lookup) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	config/) words='show check defaults' ;;
	config/check) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	flow/) words='list show kill' ;;
	flow/show) words=$(kvsteer flow list 2>/dev/null | awk 'NR > 1 { print $1 }') ;;
	flow/kill) words=$(kvsteer flow list 2>/dev/null | awk 'NR > 1 { print $1 }') ;;
	model/) words='render tokenize pull add list' ;;
	model/render) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	model/tokenize) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	model/add) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
	doctor/*) words=$(kvsteer pod list 2>/dev/null | awk 'NR > 1 && $1 !~ /:$/ { print $1 }') ;;
	bpf/) words='show dump unload' ;;
	completion/) words='bash' ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
}
complete -F _kvsteer kvsteer
