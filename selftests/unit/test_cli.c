/* SPDX-License-Identifier: Apache-2.0
 * The real program against a real control socket, behind which canned answers stand.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ctl/ctl.h"

#define PODS                                                                                                          \
	"[{\"name\":\"10.0.0.1:8000\",\"pool\":\"a\",\"role\":\"both\",\"state\":\"up\",\"why\":\"\",\"inflight\":3," \
	"\"waiting\":1,\"kv_usage\":0.425,\"index\":\"live\",\"blocks\":1200,\"predicted_tokens\":9000,"              \
	"\"reported_tokens\":8990,\"requests\":17,\"failed\":0,\"engine\":\"vllm\",\"models\":[\"m\",\"n\"]},"        \
	"{\"name\":\"10.0.0.22:8000\",\"pool\":\"a\",\"role\":\"both\",\"state\":\"ejected\",\"why\":\"5 errors\","   \
	"\"inflight\":0,\"waiting\":0,\"kv_usage\":null,\"index\":\"none\",\"blocks\":0,\"predicted_tokens\":0,"      \
	"\"reported_tokens\":0,\"requests\":5,\"failed\":5,\"engine\":\"\",\"models\":[]}]"

#define DECISION                                                                                                      \
	"{\"time\":\"12:00:00.000\",\"request\":\"r-1\",\"model\":\"m\",\"policy\":\"default\",\"mode\":\"precise\"," \
	"\"prompt_tokens\":100,\"predicted_tokens\":64,\"reported_tokens\":null,\"pod\":\"10.0.0.1:8000\","           \
	"\"ttft_ms\":12.5,\"end\":\"complete\",\"candidates\":[{\"pod\":\"10.0.0.1:8000\",\"matched_tokens\":64,"     \
	"\"uncached\":36,\"backlog\":0.25,\"own\":0.1,\"inflight\":1,\"waiting\":0,\"cost\":0.35}]}"

static const struct {
	const char *cmd, *data;
} canned[] = {
	{ "status",
	  "{\"version\":\"v1\",\"pid\":7,\"uptime_s\":3700,\"listeners\":[\"0.0.0.0:80\",\"[::]:81\"],"
	  "\"admin\":\"127.0.0.1:9090\",\"workers\":2,\"datapath\":{\"mode\":\"auto\",\"carrier\":\"tc\"},"
	  "\"pods\":{\"total\":4,\"usable\":3},\"streams\":5,\"connections\":6,\"requests\":99,"
	  "\"predicted_tokens\":64,\"reported_tokens\":63,\"hit_rate\":0.5,\"rss_bytes\":33554432,"
	  "\"index\":{\"nodes\":12,\"bytes\":1536,\"max_bytes\":536870912},\"warnings\":[\"pod x is away\"]}" },
	{ "pod.list", PODS },
	{ "pod.drain", "{\"pod\":\"10.0.0.1:8000\",\"state\":\"draining\"}" },
	{ "pod.undrain", "{\"pod\":\"10.0.0.1:8000\",\"state\":\"up\"}" },
	{ "decision.show", DECISION },
	{ "index.stats", "{\"nodes\":12,\"max_bytes\":536870912}" },
	{ "config.show", "{\"yaml\":\"workers: 2\\n\"}" },
	{ "flow.list",
	  "[{\"id\":7,\"state\":\"active\",\"owner\":\"this\",\"client\":\"10.0.0.9:5000\",\"pod\":\"10.0.0.1:8000\","
	  "\"age_s\":12.5,\"idle_s\":0.25,\"bytes\":4096,\"flags\":[\"end_known\"]}]" },
	{ "flow.show", "{\"id\":7,\"state\":\"active\",\"flags\":[]}" },
	{ "flow.kill", "{\"id\":7,\"client\":\"10.0.0.9:5000\",\"pod\":\"10.0.0.1:8000\"}" },
	{ "reload", "{\"changed\":[\"workers\",\"log.level\"]}" },
	{ "drain", "{}" },
};

static struct {
	char dir[32], path[64], err[64], program[PATH_MAX];
	struct loop *loop;
	struct ctl *ctl;
	pthread_t thread;
	struct ctl_cmd cmds[24];
	unsigned n;
} d;

/* The command is known by its place in the table: each has a function of its own. */
static enum ctl_code say(unsigned i, struct jw *w)
{
	buf_puts(w->b, canned[i].data);
	return CTL_OK;
}

#define CANNED(i)                                                                                                \
	static enum ctl_code say_##i(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c) \
	{                                                                                                        \
		return say(i, w);                                                                                \
	}
CANNED(0)
CANNED(1)
CANNED(2)
CANNED(3)
CANNED(4)
CANNED(5)
CANNED(6)
CANNED(7)
CANNED(8)
CANNED(9)
CANNED(10)
CANNED(11)

static enum ctl_code pod_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	const char *pod = json_string_value(json_object_get(args, "pod"));

	if (!pod || strcmp(pod, "10.0.0.1:8000") != 0) {
		buf_printf(err, "no pod %s", pod ? pod : "named");
		return CTL_NOT_FOUND;
	}
	buf_puts(w->b, "{\"name\":\"10.0.0.1:8000\",\"models\":[\"m\",\"n\"],\"block_size\":16,\"last_error\":null}");
	return CTL_OK;
}

static enum ctl_code index_lookup(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	const char *text = json_string_value(json_object_get(args, "text"));
	const char *model = json_string_value(json_object_get(args, "model"));

	jw_arr(w);
	if (strcmp(text, "nobody") != 0) {
		jw_obj(w);
		jw_kstr(w, "pod", model ? model : "p");
		jw_ku64(w, "tokens", strlen(text));
		jw_ku64(w, "blocks", 1);
		jw_ku64(w, "bytes", strlen(text));
		jw_kbool(w, "exact", true);
		jw_end_obj(w);
	}
	jw_end_arr(w);
	return CTL_OK;
}

/* Sends what it is asked for and then hangs up by refusing. */
static enum ctl_code decision_tail(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	for (json_int_t i = json_integer_value(json_object_get(args, "n")); i > 0; i--)
		ctl_conn_line(c, STR(DECISION));
	buf_puts(err, "that was all");
	return CTL_FAILED;
}

static void *run(void *arg)
{
	loop_run(d.loop);
	return NULL;
}

static void find_program(void)
{
	char self[PATH_MAX] = "";
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0)
		snprintf(d.program, sizeof(d.program), "%.2000s/../bin/kvsteer", dirname(self));
	if (access(d.program, X_OK) != 0)
		strcpy(d.program, ".output/bin/kvsteer");
}

static int setup(void **state)
{
	static enum ctl_code (*const fns[])(void *, json_t *, struct jw *, struct buf *,
					    struct ctl_conn *) = { say_0, say_1, say_2, say_3, say_4,  say_5,
								   say_6, say_7, say_8, say_9, say_10, say_11 };

	memset(&d, 0, sizeof(d));
	find_program();
	setenv("KVSTEER", d.program, 1);
	for (; d.n < sizeof(canned) / sizeof(canned[0]); d.n++)
		d.cmds[d.n] = (struct ctl_cmd){ canned[d.n].cmd, fns[d.n] };
	d.cmds[d.n++] = (struct ctl_cmd){ "pod.show", pod_show };
	d.cmds[d.n++] = (struct ctl_cmd){ "index.lookup", index_lookup };
	d.cmds[d.n++] = (struct ctl_cmd){ "decision.tail", decision_tail };
	strcpy(d.dir, "/tmp/kvs-cli-XXXXXX");
	assert_non_null(mkdtemp(d.dir));
	snprintf(d.path, sizeof(d.path), "%s/s", d.dir);
	snprintf(d.err, sizeof(d.err), "%s/err", d.dir);
	d.loop = loop_new();
	d.ctl = ctl_start(d.loop, d.path, d.cmds, d.n, NULL);
	assert_non_null(d.ctl);
	return pthread_create(&d.thread, NULL, run, NULL);
}

static int teardown(void **state)
{
	loop_stop(d.loop);
	pthread_join(d.thread, NULL);
	ctl_stop(d.ctl);
	loop_free(d.loop);
	unlink(d.err);
	return rmdir(d.dir);
}

static void read_all(FILE *f, struct buf *ret)
{
	size_t n;

	while ((n = fread(buf_room(ret, 4096), 1, 4096, f)) > 0)
		buf_commit(ret, n);
	buf_put(ret, "", 1);
	ret->len--;
}

/* Run with <args> as a shell would; gives the exit code. */
static int kvsteer(const char *args, struct buf *out, struct buf *err)
{
	char cmd[1024];
	int status;
	FILE *f;

	out->len = err->len = out->off = err->off = 0;
	snprintf(cmd, sizeof(cmd), "\"$KVSTEER\" --control '%s' %.512s 2>'%s'", d.path, args, d.err);
	f = popen(cmd, "r");
	read_all(f, out);
	status = pclose(f);
	f = fopen(d.err, "re");
	read_all(f, err);
	fclose(f);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void need_program(void)
{
	if (access(d.program, X_OK) != 0) {
		print_message("SKIP: kvsteer is not built here\n");
		skip();
	}
}

static void each_verb_prints_what_the_daemon_says(void **state)
{
	static const struct {
		const char *args;
		int code;
		const char *out, *err;
	} rows[] = {
		{ "status", 0,
		  "kvsteerd v1, pid 7, up 1h1m\n"
		  "listeners  0.0.0.0:80, [::]:81; admin 127.0.0.1:9090; 2 workers\n"
		  "carrier    tc (mode auto)\n"
		  "pods       3 usable of 4\n"
		  "traffic    5 streams, 6 connections; 99 requests so far\n"
		  "prefix     hit rate 0.5; 64 tokens predicted, 63 reported by the pods\n"
		  "index      12 nodes, 1.5 KiB of 512 MiB\n"
		  "memory     32 MiB resident\n"
		  "warning    pod x is away\n",
		  "" },
		{ "pod list", 0,
		  "POD             STATE    ROLE  INFLIGHT  WAITING   KV  INDEX  BLOCKS  PREDICTED  REPORTED  REQUESTS"
		  "  FAILED  ENGINE\n"
		  "10.0.0.1:8000   up       both         3        1  42%  live     1200       9000      8990        17"
		  "       0  vllm\n"
		  "10.0.0.22:8000  ejected  both         0        0    -  none        0          0         0         5"
		  "       5  -\n"
		  "10.0.0.22:8000: 5 errors\n",
		  "" },
		{ "-j pod list", 0, PODS "\n", "" },
		{ "pod -j", 0, PODS "\n", "" },
		{ "p l -j", 0, PODS "\n", "" },
		{ "pod show 10.0.0.1:8000", 0,
		  "name        10.0.0.1:8000\nmodels      m, n\nblock size  16\nlast error  -\n", "" },
		{ "pod show x", 4, "", "kvsteer: no pod x\n" },
		{ "-j pod show x", 4, "", "{\"code\":\"not_found\",\"error\":\"no pod x\"}\n" },
		{ "pod drain 10.0.0.1:8000", 0, "10.0.0.1:8000 is draining\n", "" },
		{ "pod undrain 10.0.0.1:8000", 0, "10.0.0.1:8000 is up\n", "" },
		{ "-j decision tail -n 2", 1, DECISION "\n" DECISION "\n",
		  "{\"code\":\"failed\",\"error\":\"that was all\"}\n" },
		{ "-j decision show r-1", 0, DECISION "\n", "" },
		{ "flow", 0,
		  "ID  STATE   OWNER  CLIENT         POD             AGE  IDLE  BYTES  FLAGS\n"
		  " 7  active  this   10.0.0.9:5000  10.0.0.1:8000  12.5  0.25   4096  end_known\n",
		  "" },
		{ "flow show 7", 0, "id     7\nstate  active\nflags  -\n", "" },
		{ "flow show 0", 2, "", "kvsteer: \"0\" is no splice's number; `kvsteer flow list` shows them\n" },
		{ "flow kill 7", 0, "splice 7 is being ended: 10.0.0.9:5000 and 10.0.0.1:8000 get a reset\n", "" },
		{ "index", 0, "nodes      12\nmax bytes  536870912\n", "" },
		{ "index lookup hello", 0, "POD  TOKENS  BLOCKS  BYTES  EXACT\np         5       1      5  yes\n", "" },
		{ "index lookup -m gpt hello", 0,
		  "POD  TOKENS  BLOCKS  BYTES  EXACT\ngpt       5       1      5  yes\n", "" },
		{ "index lookup -- -x", 0, "POD  TOKENS  BLOCKS  BYTES  EXACT\np         2       1      2  yes\n", "" },
		{ "index lookup nobody", 0, "no pod holds any of it\n", "" },
		{ "index lookup - <<E\na\nb\nE\n true", 0,
		  "POD  TOKENS  BLOCKS  BYTES  EXACT\np         4       1      4  yes\n", NULL },
		{ "config show", 0, "workers: 2\n", "" },
		{ "reload", 0, "reloaded, changed: workers, log.level\n", "" },
		{ "drain", 0, "draining: no new connections, streams go on\n", "" },
	};
	struct buf out = { 0 }, err = { 0 };

	need_program();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int code = kvsteer(rows[i].args, &out, &err);

		assert_string_equal(buf_data(&out), rows[i].out);
		if (rows[i].err)
			assert_string_equal(buf_data(&err), rows[i].err);
		assert_int_equal(code, rows[i].code);
	}
	buf_free(&out);
	buf_free(&err);
}

static void wrong_usage_is_told_in_one_line_with_code_2(void **state)
{
	static const struct {
		const char *args, *err;
	} rows[] = {
		{ "", "kvsteer: no object given; kvsteer --help tells what there is\n" },
		{ "pots", "kvsteer: \"pots\" is no object; there are: status, pod, decision, index, config, flow, "
			  "model, doctor, bpf, reload, "
			  "drain, version, completion\n" },
		{ "d", "kvsteer: \"d\" could be decision, doctor, drain\n" },
		{ "pod s 1 2", "kvsteer: usage: kvsteer pod show POD\n" },
		{ "pod show", "kvsteer: usage: kvsteer pod show POD\n" },
		{ "pod dance", "kvsteer: \"dance\" is no verb; there are: list, show, drain, undrain\n" },
		{ "status x", "kvsteer: usage: kvsteer status\n" },
		{ "pod list -m x", "kvsteer: -m, --model NAME is no option of pod list\n" },
		{ "decision tail -n many", "kvsteer: -n many: not a number from 0 to 1000000\n" },
		{ "decision tail -n", "kvsteer: -n needs a value\n" },
		{ "pod list --wide", "kvsteer: --wide is no option; kvsteer --help tells what there is\n" },
		{ "pod list --wide -j",
		  "{\"code\":\"usage\",\"error\":\"--wide is no option; kvsteer --help tells what there is\"}\n" },
	};
	struct buf out = { 0 }, err = { 0 };

	need_program();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(kvsteer(rows[i].args, &out, &err), 2);
		assert_string_equal(buf_data(&out), "");
		assert_string_equal(buf_data(&err), rows[i].err);
	}
	buf_free(&out);
	buf_free(&err);
}

static void a_daemon_that_is_away_is_code_3(void **state)
{
	struct buf out = { 0 }, err = { 0 };

	need_program();
	assert_int_equal(kvsteer("--control /tmp/kvs-nobody status", &out, &err), 3);
	assert_string_equal(buf_data(&err), "kvsteer: no daemon listens at /tmp/kvs-nobody: is kvsteerd running? "
					    "(--control names another)\n");
	assert_int_equal(kvsteer("--control /tmp/kvs-nobody decision tail -j", &out, &err), 3);
	assert_true(str_starts(buf_str(&err), STR("{\"code\":\"unreachable\",")));
	buf_free(&out);
	buf_free(&err);
}

static void configuration_is_checked_without_a_daemon(void **state)
{
	struct buf out = { 0 }, err = { 0 };
	char args[256], want[256];
	FILE *f;

	need_program();
	snprintf(args, sizeof(args), "config defaults >%s/c && \"$KVSTEER\" config check %s/c", d.dir, d.dir);
	assert_int_equal(kvsteer(args, &out, &err), 0);
	snprintf(want, sizeof(want), "%s/c: ok\n", d.dir);
	assert_string_equal(buf_data(&out), want);
	snprintf(want, sizeof(want), "%s/c", d.dir);
	snprintf(args, sizeof(args), "config check --set pools[0].limits.retrys=1 --set x %s/c", d.dir);
	assert_int_equal(kvsteer(args, &out, &err), 1);
	assert_string_equal(buf_data(&err), "pools[0].limits.retrys: unknown key, did you mean \"retries\"?\n"
					    "--set x: KEY=VALUE is wanted\n");
	snprintf(args, sizeof(args), "config check --set pools[0].limits.retries=1 %s/c", d.dir);
	assert_int_equal(kvsteer(args, &out, &err), 0);
	f = fopen(want, "we");
	fputs("memry: 1\n", f);
	fclose(f);
	snprintf(args, sizeof(args), "config check %s/c", d.dir);
	assert_int_equal(kvsteer(args, &out, &err), 1);
	snprintf(want, sizeof(want), "%s/c:1:1: memry: unknown key, did you mean \"memory\"?\n", d.dir);
	assert_string_equal(buf_data(&err), want);
	snprintf(args, sizeof(args), "-j config check %s/c", d.dir);
	assert_int_equal(kvsteer(args, &out, &err), 1);
	assert_non_null(strstr(buf_data(&out), "\"ok\":false,\"errors\":[\""));
	snprintf(want, sizeof(want), "%s/c", d.dir);
	unlink(want);
	buf_free(&out);
	buf_free(&err);
}

static void generated_files_are_up_to_date(void **state)
{
	static const struct {
		const char *args, *file;
	} rows[] = {
		{ "completion bash", "deploy/completion/kvsteer.bash" },
		{ "config defaults --rst", "docs/man/kvsteer.yaml.options.inc" },
	};
	struct buf out = { 0 }, err = { 0 }, text = { 0 };

	need_program();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		FILE *f = fopen(rows[i].file, "re");

		if (!f) {
			print_message("SKIP: %s: not run from the top of the tree\n", rows[i].file);
			skip();
		}
		text.len = text.off = 0;
		read_all(f, &text);
		fclose(f);
		assert_int_equal(kvsteer(rows[i].args, &out, &err), 0);
		assert_string_equal(buf_data(&out), buf_data(&text));
	}
	buf_free(&out);
	buf_free(&err);
	buf_free(&text);
}

static void completion_knows_objects_verbs_and_pods(void **state)
{
	static const struct {
		const char *words, *out;
	} rows[] = {
		{ "d", "decision doctor drain" },
		{ "pod ''", "list show drain undrain" },
		{ "pod u", "undrain" },
		{ "-j pod s", "show" },
		{ "--control x pod s", "show" },
		{ "-",
		  "--control --json --model --lines --rst --set --template --tokenizer-config --api --repeat --time "
		  "--cache-dir --decode --special --tokens --pod --endpoint --revision --ca-file --help "
		  "--version" },
		{ "pod show ''", "10.0.0.1:8000 10.0.0.22:8000" },
	};
	static const char cmd[] =
		"bash --norc -c 'source <(\"$KVSTEER\" completion bash); kvsteer() { \"$KVSTEER\" \"$@\"; };"
		"eval \"COMP_WORDS=(kvsteer $WORDS)\"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1));"
		"_kvsteer; echo \"${COMPREPLY[*]}\"'";
	struct buf out = { 0 };

	need_program();
	if (system("command -v bash >/dev/null 2>&1") != 0) {
		print_message("SKIP: no bash here\n");
		skip();
	}
	setenv("KVSTEER_CONTROL", d.path, 1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		FILE *f;

		setenv("WORDS", rows[i].words, 1);
		f = popen(cmd, "r");
		out.len = out.off = 0;
		read_all(f, &out);
		assert_int_equal(pclose(f), 0);
		if (buf_len(&out))
			buf_data(&out)[buf_len(&out) - 1] = '\0';
		assert_string_equal(buf_data(&out), rows[i].out);
	}
	unsetenv("KVSTEER_CONTROL");
	buf_free(&out);
}

#define WITH_DAEMON(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_DAEMON(each_verb_prints_what_the_daemon_says),
		WITH_DAEMON(wrong_usage_is_told_in_one_line_with_code_2),
		WITH_DAEMON(a_daemon_that_is_away_is_code_3),
		WITH_DAEMON(configuration_is_checked_without_a_daemon),
		WITH_DAEMON(generated_files_are_up_to_date),
		WITH_DAEMON(completion_knows_objects_verbs_and_pods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
