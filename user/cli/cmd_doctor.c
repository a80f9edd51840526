/* SPDX-License-Identifier: Apache-2.0
 * What is wrong, and what to do about it. The checks are in doctor_*.c.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/doctor.h"

static const char *const words[] = { [FINDING_OK] = "ok", [FINDING_WARN] = "warn", [FINDING_FAIL] = "fail" };

void doctor_say(struct doctor *d, const char *check, enum finding is, const char *fix, const char *fmt, ...)
{
	struct buf what = { 0 };
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&what, fmt, ap);
	va_end(ap);
	for (size_t i = 0; i < buf_len(&what); i++)
		if ((unsigned char)buf_data(&what)[i] < ' ')
			buf_data(&what)[i] = ' ';
	d->n[is]++;
	json_array_append_new(d->findings,
			      json_pack("{s:s, s:s, s:s%, s:s?}", "check", check, "result", words[is], "what",
					buf_len(&what) ? buf_data(&what) : "", buf_len(&what), "fix", fix));
	buf_free(&what);
}

static const char *colour(const char *word)
{
	if (!isatty(STDOUT_FILENO) || getenv("NO_COLOR"))
		return "";
	return strcmp(word, "ok") == 0 ? "\033[32m" : strcmp(word, "warn") == 0 ? "\033[33m" : "\033[31m";
}

static void print(const json_t *subject)
{
	const json_t *f;
	size_t i;

	puts(cli_text(subject, "pod"));
	json_array_foreach(json_object_get(subject, "findings"), i, f)
	{
		const char *word = json_string_value(json_object_get(f, "result")), *on = colour(word);
		const char *fix = json_string_value(json_object_get(f, "fix"));

		printf("  %s%-4s%s  %-15s %s\n", on, word, *on ? "\033[0m" : "",
		       json_string_value(json_object_get(f, "check")), json_string_value(json_object_get(f, "what")));
		if (fix)
			printf("  %-4s  %-15s %s\n", "", "-> to do", fix);
	}
}

static json_t *examine(struct doctor *d, const char *name, int *ret)
{
	json_t *pod = NULL, *subject;

	*ret = cli_call(d->c, "pod.show", json_pack("{s:s}", "pod", name), &pod);
	if (*ret)
		return NULL;
	d->findings = json_array();
	doctor_pod(d, pod);
	json_decref(pod);
	subject = json_pack("{s:s, s:o}", "pod", name, "findings", d->findings);
	d->findings = NULL;
	return subject;
}

/* Those named, else all. */
static json_t *names_of(const struct cli *c, int argc, char **argv, int *ret)
{
	json_t *names = json_array(), *pods = NULL;
	const json_t *pod;
	size_t i;

	*ret = CLI_OK;
	for (int k = 0; k < argc; k++)
		json_array_append_new(names, json_string(argv[k]));
	if (!argc)
		*ret = cli_call(c, "pod.list", NULL, &pods);
	json_array_foreach(pods, i, pod) json_array_append(names, json_object_get(pod, "name"));
	json_decref(pods);
	return names;
}

static int doctor(struct cli *c, int argc, char **argv)
{
	struct doctor d = { .c = c };
	json_t *names, *all = json_array();
	const json_t *name;
	size_t i;
	int r;

	names = names_of(c, argc, argv, &r);
	json_array_foreach(names, i, name)
	{
		json_t *subject = r ? NULL : examine(&d, json_string_value(name), &r);

		if (!subject)
			break;
		if (!c->json)
			print(subject);
		fflush(stdout);
		json_array_append_new(all, subject);
	}
	json_decref(names);
	if (r == CLI_OK && c->json) {
		json_t *v = json_pack("{s:O, s:i, s:i, s:i}", "pods", all, "ok", d.n[FINDING_OK], "warn",
				      d.n[FINDING_WARN], "fail", d.n[FINDING_FAIL]);

		cli_print_json(v);
		json_decref(v);
	} else if (r == CLI_OK) {
		printf("%u ok, %u to look at, %u wrong\n", d.n[FINDING_OK], d.n[FINDING_WARN], d.n[FINDING_FAIL]);
	}
	json_decref(all);
	return r ? r : d.n[FINDING_FAIL] ? CLI_FAILED : CLI_OK;
}

static const struct verb verbs[] = { { .args = "[POD…]",
				       .doc = "what is wrong with pods and models, and what to do about it",
				       .flags = FLAG_CACHE,
				       .max = 256,
				       .complete = "pod",
				       .run = doctor } };
const struct object object_doctor = { .name = "doctor", .doc = "what is wrong", OBJECT_VERBS(verbs) };
