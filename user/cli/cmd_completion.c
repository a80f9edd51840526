/* SPDX-License-Identifier: Apache-2.0
 * Completion for bash, made from the same tables that the program runs by.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const char head[] =
	"# bash completion for kvsteer; made by: kvsteer completion bash\n"
	"_kvsteer()\n"
	"{\n"
	"\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} object='' verb='' words='' i\n"
	"\n"
	"\tCOMPREPLY=()\n"
	"\t# A pod's name holds colons, at which bash would cut it.\n"
	"\tdeclare -F _get_comp_words_by_ref >/dev/null && _get_comp_words_by_ref -n : cur prev\n"
	"\tcase $prev in\n"
	"\t--control|--template|--tokenizer-config|--cache-dir|--ca-file) mapfile -t COMPREPLY < <(compgen -f -- "
	"\"$cur\"); "
	"return ;;\n"
	"\t-m|--model|-n|--lines|--set|--repeat|--pod|--endpoint|--revision) return ;;\n"
	"\tesac\n"
	"\tfor ((i = 1; i < COMP_CWORD; i++)); do\n"
	"\t\tcase ${COMP_WORDS[i]} in\n"
	"\t\t--control|-m|--model|-n|--lines|--set|--template|--tokenizer-config|--api|--repeat|--cache-dir|--pod|--"
	"endpoint|--revision|"
	"--ca-file) ((i++)) "
	";;\n"
	"\t\t-*) ;;\n"
	"\t\t*) if [ -z \"$object\" ]; then object=${COMP_WORDS[i]}; elif [ -z \"$verb\" ]; then "
	"verb=${COMP_WORDS[i]}; fi ;;\n"
	"\t\tesac\n"
	"\tdone\n"
	"\tcase $cur in\n"
	"\t-*) object=-; verb=; words='--control --json --model --lines --rst --set --template --tokenizer-config "
	"--api "
	"--repeat --time --cache-dir --decode --special --tokens --pod --endpoint --revision --ca-file --help "
	"--version' ;;\n"
	"\tesac\n"
	"\tcase $object/$verb in\n";

static const char foot[] = "\tesac\n"
			   "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
			   "\tdeclare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions \"$cur\"\n"
			   "}\n"
			   "complete -F _kvsteer kvsteer\n";

static void put_verbs(const struct object *o)
{
	if (o->verbs[0].name) {
		printf("\t%s/) words='", o->name);
		for (unsigned i = 0; i < o->n; i++)
			printf("%s%s", i ? " " : "", o->verbs[i].name);
		puts("' ;;");
	}
	for (unsigned i = 0; i < o->n; i++) {
		const struct verb *v = &o->verbs[i];

		if (!v->complete || !*v->complete)
			continue;
		printf("\t%s/%s) ", o->name, v->name ? v->name : "*");
		if (strcmp(v->complete, "file") == 0)
			puts("mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;");
		else if (strcmp(v->complete, "flow") == 0)
			puts("words=$(kvsteer flow list 2>/dev/null | awk 'NR > 1 { print $1 }') ;;");
		else
			puts("words=$(kvsteer pod list 2>/dev/null | awk 'NR > 1 && $1 !~ /:$/ { print $1 }') ;;");
	}
}

static int bash(struct cli *c, int argc, char **argv)
{
	fputs(head, stdout);
	printf("\t/) words='");
	for (const struct object *const *o = cli_objects; *o; o++)
		printf("%s%s", o == cli_objects ? "" : " ", (*o)->name);
	puts("' ;;");
	for (const struct object *const *o = cli_objects; *o; o++)
		if ((*o)->verbs[0].name || (*o)->verbs[0].complete)
			put_verbs(*o);
	fputs(foot, stdout);
	return CLI_OK;
}

static const struct verb verbs[] = { { "bash", "", "completion script for bash", 0, 0, 0, NULL, bash } };
const struct object object_completion = { .name = "completion", .doc = "completion", OBJECT_VERBS(verbs) };
