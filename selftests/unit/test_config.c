/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/time.h"
#include "config/config_int.h"
#include "sched/sched.h"

#define MINIMAL "pools: [{discovery: {static: [\"10.0.0.1:8000\"]}}]\n"

static const char *text_of(struct buf *b)
{
	buf_put(b, "", 1);
	b->len--;
	return buf_data(b);
}

static struct config *parse(const char *text, struct buf *err)
{
	return config_parse(str_of(text), "f.yaml", err);
}

static void a_duration_is_a_number_with_a_unit(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t ns;
	} rows[] = {
		{ "200ms", 0, 200 * NS_PER_MS },
		{ "30s", 0, 30 * NS_PER_S },
		{ "5m", 0, 300 * NS_PER_S },
		{ "1h", 0, 3600 * NS_PER_S },
		{ "1m30s", 0, 90 * NS_PER_S },
		{ "1.5s", 0, 1500 * NS_PER_MS },
		{ "0.000000001s", 0, 1 },
		{ "7us", 0, 7000 },
		{ "7ns", 0, 7 },
		{ "0", 0, 0 },
		{ "30", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
		{ "s", -EINVAL, 0 },
		{ "-1s", -EINVAL, 0 },
		{ "1.s", -EINVAL, 0 },
		{ "1.0000000001s", -EINVAL, 0 },
		{ "1 s", -EINVAL, 0 },
		{ "1S", -EINVAL, 0 },
		{ "1d", -EINVAL, 0 },
		{ "18446744073709551616ns", -ERANGE, 0 },
		{ "9999999999h", -ERANGE, 0 },
		{ "5124095h5124095h", -ERANGE, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t v = 0;

		assert_int_equal(value_duration(str_of(rows[i].text), &v), rows[i].r);
		assert_int_equal(v, rows[i].ns);
	}
}

static void a_size_says_whether_it_counts_by_1000_or_1024(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} rows[] = {
		{ "4KiB", 0, 4096 },
		{ "2GiB", 0, UINT64_C(2) << 30 },
		{ "1MB", 0, 1000000 },
		{ "1kB", 0, 1000 },
		{ "512Mi", 0, 512 << 20 },
		{ "1.5GiB", 0, UINT64_C(3) << 29 },
		{ "4096", 0, 4096 },
		{ "4096B", 0, 4096 },
		{ "0", 0, 0 },
		{ "2G", -EINVAL, 0 },
		{ "2g", -EINVAL, 0 },
		{ "2 GiB", -EINVAL, 0 },
		{ "1KiB1KiB", -EINVAL, 0 },
		{ "many", -EINVAL, 0 },
		{ "99999999TiB", -ERANGE, 0 },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t v = 0;

		assert_int_equal(value_size(str_of(rows[i].text), &v), rows[i].r);
		assert_int_equal(v, rows[i].bytes);
	}
}

static void values_are_written_as_people_write_them(void **state)
{
	static const struct {
		bool size;
		uint64_t v;
		const char *text;
	} rows[] = {
		{ false, 0, "0" },
		{ false, 200 * NS_PER_MS, "200ms" },
		{ false, 300 * NS_PER_S, "300s" },
		{ false, 1500 * NS_PER_MS, "1500ms" },
		{ false, 7200 * NS_PER_S, "2h" },
		{ false, 1, "1ns" },
		{ true, 4096, "4KiB" },
		{ true, 4097, "4097B" },
		{ true, UINT64_C(1) << 31, "2GiB" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf b = { 0 };

		(rows[i].size ? value_put_size : value_put_duration)(&b, rows[i].v);
		assert_string_equal(text_of(&b), rows[i].text);
		buf_free(&b);
	}
}

static void a_typing_error_finds_its_word(void **state)
{
	static const char *const words[] = { "queue", "queue-timeout", "connect-timeout", "first-byte", "body", NULL };
	static const struct {
		const char *word, *meant;
	} rows[] = {
		{ "queu", "queue" },
		{ "qeuue", "queue" },
		{ "queue_timeout", "queue-timeout" },
		{ "Queue-Timeout", "queue-timeout" },
		{ "frist-byte", "first-byte" },
		{ "bdy", "body" },
		{ "elephant", NULL },
		{ "x", NULL },
		{ "a-word-that-is-much-longer-than-any-option-could-be", NULL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *got = suggest(rows[i].word, words);

		if (rows[i].meant)
			assert_string_equal(got, rows[i].meant);
		else
			assert_null(got);
	}
}

static void an_empty_file_has_the_defaults(void **state)
{
	struct buf err = { 0 };
	struct config *c = parse("# nothing\n", &err);

	assert_non_null(c);
	assert_int_equal(c->nlisteners, 1);
	assert_string_equal(c->listeners[0].address, "0.0.0.0:8080");
	assert_string_equal(c->admin, "127.0.0.1:9090");
	assert_string_equal(c->control, "/run/kvsteer/kvsteer.sock");
	assert_int_equal(c->memory_max, UINT64_C(2) << 30);
	assert_int_equal(c->memory_index, 512 << 20);
	assert_int_equal(c->npools, 0);
	assert_int_equal(config_check(c, &err), -EINVAL);
	assert_string_equal(text_of(&err), "f.yaml: pools: no pods: add a pool with discovery, or --pod HOST:PORT\n");
	config_free(c);
	buf_free(&err);
}

static void a_full_file_is_read(void **state)
{
	static const char text[] =
		"listeners:\n"
		"  - address: \":8081\"\n"
		"    paths: {allow: [/sleep, /wake_up]}\n"
		"admin: {address: \"\"}\n"
		"workers: 2\n"
		"pools:\n"
		"  - name: qwen\n"
		"    models: [Qwen/Qwen3-8B, qwen]\n"
		"    engine: vllm\n"
		"    metrics: {port: 9000, path: /m}\n"
		"    discovery:\n"
		"      static:\n"
		"        - {address: \"10.0.0.1:8000\", role: prefill, events: \"tcp://10.0.0.1:5557\","
		" replay: \"tcp://10.0.0.1:5558\", weight: 3, ranks: 2}\n"
		"        - \"[fd00::1]:8000,role=decode,weight=0\"\n"
		"        - pod-3:8000\n"
		"    scheduling: {policy: p2c}\n"
		"    limits: {queue: 5, queue-timeout: 1s, body: 1MiB, retries: 0}\n"
		"    prefix: {approximate: no}\n"
		"  - name: other\n"
		"    discovery: {dns: {name: pods.svc, port: _http._tcp, events: \"tcp://*:5557\", replay: "
		"\"tcp://*:5558\","
		" ranks: 2}}\n"
		"datapath: {mode: off, min-bytes: 0}\n"
		"log: {level: debug, format: json}\n";
	struct buf err = { 0 };
	struct config *c = parse(text, &err);
	struct config_pool *p;

	assert_string_equal(text_of(&err), "");
	assert_non_null(c);
	assert_string_equal(c->listeners[0].address, ":8081");
	assert_int_equal(c->listeners[0].nallow, 2);
	assert_string_equal(c->listeners[0].allow[1], "/wake_up");
	assert_string_equal(c->admin, "");
	assert_int_equal(c->workers, 2);
	assert_int_equal(c->npools, 2);
	p = &c->pools[0];
	assert_int_equal(p->nmodels, 2);
	assert_string_equal(p->models[0], "Qwen/Qwen3-8B");
	assert_string_equal(p->metrics_port, "9000");
	assert_int_equal(p->npods, 3);
	assert_string_equal(p->pods[0].replay, "tcp://10.0.0.1:5558");
	assert_int_equal(p->pods[0].ranks, 2);
	assert_string_equal(p->pods[1].address, "[fd00::1]:8000");
	assert_string_equal(p->pods[1].role, "decode");
	assert_int_equal(p->pods[1].weight, 0);
	assert_string_equal(p->pods[2].role, "both");
	assert_null(p->pods[2].events);
	assert_string_equal(p->policy, "p2c");
	assert_int_equal(p->queue_timeout, NS_PER_S);
	assert_int_equal(p->retries, 0);
	assert_false(p->approx_lru);
	assert_int_equal(c->pools[1].discovery, DISC_DNS);
	assert_string_equal(c->pools[1].dns_port, "_http._tcp");
	assert_string_equal(c->pools[1].dns_events, "tcp://*:5557");
	assert_string_equal(c->pools[1].dns_replay, "tcp://*:5558");
	assert_int_equal(c->pools[1].dns_ranks, 2);
	assert_string_equal(c->datapath_mode, "off");
	assert_int_equal(c->datapath_min_bytes, 0);
	assert_int_equal(config_check(c, &err), 0);
	config_free(c);
	buf_free(&err);
}

static void a_mistake_is_told_with_place_reason_and_remedy(void **state)
{
	static const struct {
		const char *text, *err;
	} rows[] = {
		{ "memry: {max: 1GiB}\n", "f.yaml:1:1: memry: unknown key, did you mean \"memory\"?\n" },
		{ "pools:\n  - limits: {queue_timeout: 1s}\n",
		  "f.yaml:2:14: pools[0].limits.queue_timeout: unknown key, did you mean \"queue-timeout\"?\n" },
		{ "queue: 7\n", "f.yaml:1:1: queue: unknown key, it belongs to pools[].limits.queue\n" },
		{ "memory: {elephant: 1}\n", "f.yaml:1:10: memory.elephant: unknown key, allowed here: max, index\n" },
		{ "memory.max: 1GiB\n",
		  "f.yaml:1:1: memory.max: unknown key, allowed here: listeners, admin, control, "
		  "workers, pools, datapath, model-cache, memory, index, log, drain-timeout, decisions\n" },
		{ "memory: {max: 2G}\n",
		  "f.yaml:1:15: memory.max: \"2G\" is not a size: write a number with B, KiB, MiB, "
		  "GiB, TiB or kB, MB, GB, TB\n" },
		{ "drain-timeout: 30\n",
		  "f.yaml:1:16: drain-timeout: \"30\" is not a duration: write a number with h, m, "
		  "s, ms or us, as in 30s\n" },
		{ "drain-timeout: 25h\n", "f.yaml:1:16: drain-timeout: 25h is out of range, allowed: 0 … 24h\n" },
		{ "workers: 100\n", "f.yaml:1:10: workers: 100 is out of range, allowed: 0 … 62\n" },
		{ "workers: -1\n", "f.yaml:1:10: workers: \"-1\" is not a whole number, allowed: 0 … 62\n" },
		{ "workers: [1]\n", "f.yaml:1:10: workers: is a list, expected: number 0 … 62; default 0\n" },
		{ "workers:\n", "f.yaml:1:9: workers: is empty, expected: number 0 … 62; default 0\n" },
		{ "memory: [1]\n", "f.yaml:1:9: memory: is a list, expected a mapping\n" },
		{ "pools: {name: a}\n",
		  "f.yaml:1:8: pools: is a mapping, expected a list: write it as [ … ] or as lines "
		  "that begin with -\n" },
		{ "pools: [a]\n", "f.yaml:1:9: pools[0]: is a single value, expected a mapping\n" },
		{ "- a\n", "f.yaml:1:1: is a list, expected a mapping: pools: …\n" },
		{ "pools:\n- scheduling: {policy: p3c}\n", "f.yaml:2:24: pools[0].scheduling.policy: \"p3c\" is not "
							   "known, did you mean \"p2c\"? Allowed: default, "
							   "round-robin, random, least-request, p2c, session-hash\n" },
		{ "pools:\n- scheduling: {tiers: {cpu: 75%}}\n",
		  "f.yaml:2:29: pools[0].scheduling.tiers.cpu: \"75%\" is "
		  "not a share, allowed: 0 … 1, as in 0.75\n" },
		{ "pools:\n- scheduling: {tiers: {disk: 1.5}}\n",
		  "f.yaml:2:30: pools[0].scheduling.tiers.disk: \"1.5\" is not a share, allowed: 0 … 1, as in 0.75\n" },
		{ "log: {format: xml}\n", "f.yaml:1:15: log.format: \"xml\" is not known; allowed: logfmt, json\n" },
		{ "pools: [{prefix: {approximate: maybe}}]\n",
		  "f.yaml:1:32: pools[0].prefix.approximate: \"maybe\" is neither true nor false\n" },
		{ "workers: 1\nlog: {}\nworkers: 2\n",
		  "f.yaml:3:1: workers: given twice, first at line 1: keep one\n" },
		{ "listeners: [{tls: {cert: a}}]\n",
		  "f.yaml:1:14: listeners[0].tls: not supported yet by this version\n" },
		{ "listeners: [{auth: {}}]\n", "f.yaml:1:14: listeners[0].auth: not supported yet by this version\n" },
		{ "pools: [{discovery: {kubernetes: {namespace: a}}}]\n",
		  "f.yaml:1:22: pools[0].discovery.kubernetes: not supported yet by this version\n" },
		{ "pools: [{scheduling: {llm-d-config: x}}]\n",
		  "f.yaml:1:23: pools[0].scheduling.llm-d-config: not supported yet by this version\n" },
		{ "listeners: [{address: \"localhost:80\"}]\n", "f.yaml:1:23: listeners[0].address: \"localhost:80\" "
								"is not an address with a port: write 0.0.0.0:8080, "
								"[::]:8080 or :8080\n" },
		{ "listeners: [{paths: {allow: [sleep]}}]\n",
		  "f.yaml:1:30: listeners[0].paths.allow[0]: \"sleep\" is not a path: it must begin with / and hold no "
		  "spaces\n" },
		{ "pools: [{discovery: {static: [\"10.0.0.1\"]}}]\n",
		  "f.yaml:1:31: pools[0].discovery.static[0]: \"10.0.0.1\" is not HOST:PORT: write 10.0.0.1:8000, "
		  "[fd00::1]:8000 or name:8000\n" },
		{ "pools: [{discovery: {static: [\"a:1,rol=both\"]}}]\n",
		  "f.yaml:1:31: pools[0].discovery.static[0]: \"rol\" is an unknown key, did you mean \"role\"?\n" },
		{ "pools: [{discovery: {static: [{role: both}]}}]\n",
		  "f.yaml:1:31: pools[0].discovery.static[0]: has no address: add address: HOST:PORT\n" },
		{ "pools: [{discovery: {static: [\"a:1\", \"a:1\"]}}]\n",
		  "f.yaml:1:38: pools[0].discovery.static[1]: a:1 is listed twice: keep one\n" },
		{ "pools: [{discovery: {static: [{address: \"a:1\", events: \"udp://a:1\"}]}}]\n",
		  "f.yaml:1:56: pools[0].discovery.static[0].events: \"udp://a:1\" is not a place of events: write "
		  "tcp://HOST:PORT (ZeroMQ) or http://HOST:PORT (TensorRT-LLM); HOST may be *, the pod's own "
		  "address\n" },
		{ "pools: [{discovery: {dns: {name: n, replay: \"http://*\"}}}]\n",
		  "f.yaml:1:45: pools[0].discovery.dns.replay: \"http://*\" is not a ZeroMQ end point: write "
		  "tcp://HOST:PORT; HOST may be *, the pod's own address\n" },
		{ "pools: [{discovery: {dns: {name: n, evnts: x}}}]\n",
		  "f.yaml:1:37: pools[0].discovery.dns.evnts: unknown key, did you mean \"events\"?\n" },
		{ "pools: [{discovery: {static: [\"a:1\"], file: pods}}]\n",
		  "f.yaml:1:21: pools[0].discovery: names more than one source, allowed: one of static, file, dns\n" },
		{ "pools: [{discovery: {dns: {port: 80}}}]\n",
		  "f.yaml:1:21: pools[0].discovery.dns: has no name: add name: HOST\n" },
		{ "a: &x 1\n", "f.yaml:1:4: anchors (&name) are not allowed: write the value out\n" },
		{ "a: *x\n", "f.yaml:1:4: aliases (*name) are not allowed: write the value out\n" },
		{ "a: !!str 1\n", "f.yaml:1:4: tags (!name) are not allowed\n" },
		{ "a: 1\n---\nb: 1\n", "f.yaml:2:1: a second document (---) begins: only one is allowed\n" },
		{ "a: [1\n", "f.yaml:2:1: not valid YAML: did not find expected ',' or ']' (while parsing a flow "
			     "sequence)\n" },
		{ "? [a]\n: 1\n", "f.yaml:1:3: a key must be a word, not a list or a mapping\n" },
		{ "control: \"a\\nb\"\n", "f.yaml:1:10: a value holds a control character or a line break\n" },
		{ "a: [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n", "f.yaml:1:19: nested too deeply, allowed: 16 levels\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf err = { 0 };
		struct config *c = parse(rows[i].text, &err);

		assert_string_equal(text_of(&err), rows[i].err);
		assert_null(c);
		assert_int_equal(errno, EINVAL);
		buf_free(&err);
	}
}

static void the_policies_are_those_of_the_scheduler(void **state)
{
	const struct option *o = option_find(&section_pool, STR("scheduling.policy"));
	struct buf b = { 0 };

	for (const struct sched_ops *const *p = sched_all(); *p; p++)
		buf_printf(&b, "%s%s", buf_len(&b) ? "|" : "", (*p)->name);
	assert_string_equal(text_of(&b), o->allowed);
	buf_free(&b);
}

static void all_mistakes_are_told_at_once(void **state)
{
	struct buf err = { 0 };

	assert_null(parse("workers: x\nmemry: 1\npools:\n- name: a b\n  engine: vlm\n", &err));
	assert_string_equal(
		text_of(&err),
		"f.yaml:1:10: workers: \"x\" is not a whole number, allowed: 0 … 62\n"
		"f.yaml:2:1: memry: unknown key, did you mean \"memory\"?\n"
		"f.yaml:4:9: pools[0].name: \"a b\" is not a name: 1 … 63 letters, digits, - . _ are allowed\n"
		"f.yaml:5:11: pools[0].engine: \"vlm\" is not known, did you mean \"vllm\"? Allowed: auto, vllm, "
		"sglang, trtllm\n");
	buf_free(&err);
}

static void what_no_single_value_shows_is_checked(void **state)
{
	static const struct {
		const char *text, *err;
	} rows[] = {
		{ MINIMAL, "" },
		{ "pools:\n- name: a\n", "f.yaml:2:3: pools[0].discovery: no pods: give a static list, a file or a dns "
					 "name\n" },
		{ MINIMAL "memory: {max: 100MiB, index: 200MiB}\n",
		  "f.yaml:2:30: memory.index: is larger than memory.max, of which it is a part\n" },
		{ MINIMAL "listeners: [{address: \":80\"}, {address: \":80\"}]\n",
		  "f.yaml:2:41: listeners[1].address: \":80\" is the address of listeners[0] too\n" },
		{ MINIMAL "listeners: [{address: \":80\"}]\nadmin: {address: \":80\"}\n",
		  "f.yaml:2:23: listeners[0].address: \":80\" is the admin address too\n" },
		{ "pools:\n- {name: a, models: [m], discovery: {static: [\"a:1\"]}}\n"
		  "- {name: a, models: [m], discovery: {static: [\"a:1\"]}}\n",
		  "f.yaml:3:10: pools[1].name: \"a\" is the name of pools[0] too: names are unique\n"
		  "f.yaml:3:22: pools[1].models[0]: \"m\" is served by pool \"a\" already: a request names only the "
		  "model\n" },
		{ "pools: [{discovery: {static: [\"a:1,role=prefill\"]}}]\n",
		  "f.yaml:1:30: pools[0].discovery.static: all pods are prefill: nobody decodes\n" },
		{ "pools:\n- model-path: /nonexistent/m\n  discovery: {static: [\"a:1\"]}\n",
		  "f.yaml:2:15: pools[0].model-path: /nonexistent/m: No such file or directory\n" },
		{ "pools:\n- api-key-file: /nonexistent/k\n  discovery: {file: /nonexistent/p}\n",
		  "f.yaml:2:17: pools[0].api-key-file: /nonexistent/k: No such file or directory\n"
		  "f.yaml:3:21: pools[0].discovery.file: /nonexistent/p: No such file or directory\n" },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct buf err = { 0 };
		struct config *c = parse(rows[i].text, &err);

		assert_non_null(c);
		assert_int_equal(config_check(c, &err), rows[i].err[0] ? -EINVAL : 0);
		assert_string_equal(text_of(&err), rows[i].err);
		config_free(c);
		buf_free(&err);
	}
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void a_file_names_files_relative_to_itself(void **state)
{
	char dir[] = "/tmp/kvs-config-XXXXXX", file[64], model[64], want[256];
	struct buf err = { 0 };
	struct config *c;

	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/kvsteer.yaml", dir);
	snprintf(model, sizeof(model), "%s/m", dir);
	write_file(file, "pools: [{model-path: m, discovery: {static: [\"a:1\"]}}]\n");
	assert_int_equal(mkdir(model, 0700), 0);
	c = config_load(file, &err);
	assert_non_null(c);
	assert_string_equal(c->pools[0].model_path, model);
	assert_int_equal(config_check(c, &err), -EINVAL);
	snprintf(want, sizeof(want),
		 "%s:1:22: pools[0].model-path: %s/tokenizer.json: No such file or directory (it is read to turn token "
		 "ids into text)\n",
		 file, model);
	assert_string_equal(text_of(&err), want);
	config_free(c);
	buf_free(&err);
	rmdir(model);
	unlink(file);
	rmdir(dir);
	assert_null(config_load(file, &err));
	assert_int_equal(errno, ENOENT);
	buf_free(&err);
}

static void what_is_written_reads_back_the_same(void **state)
{
	struct buf err = { 0 }, once = { 0 }, again = { 0 };
	struct config *c =
		parse("listeners: [{address: \":1\", paths: {allow: [\"/a'b\\\"c\"]}}]\n"
		      "pools: [{models: [\"x: y\", \"null\"], discovery: {static: [\"a:1,weight=7\", \"b:1\"]}},"
		      " {name: b, discovery: {dns: {name: n, interval: 1500ms}}}, {name: c, discovery: {file: /p}}]\n",
		      &err);
	struct config *d;

	assert_non_null(c);
	assert_int_equal(config_write_yaml(c, &once), 0);
	d = config_parse(buf_str(&once), "f.yaml", &err);
	assert_string_equal(text_of(&err), "");
	assert_non_null(d);
	assert_string_equal(d->listeners[0].allow[0], "/a'b\"c");
	assert_string_equal(d->pools[0].models[1], "null");
	assert_int_equal(d->pools[1].dns_interval, 1500 * NS_PER_MS);
	assert_int_equal(d->pools[2].discovery, DISC_FILE);
	assert_int_equal(config_write_yaml(d, &again), 0);
	assert_string_equal(text_of(&again), text_of(&once));
	config_free(c);
	config_free(d);
	buf_free(&once);
	buf_free(&again);
	buf_free(&err);
}

static void the_written_defaults_are_the_defaults(void **state)
{
	struct buf err = { 0 }, text = { 0 }, a = { 0 }, b = { 0 };
	struct config *c, *d = config_defaults();

	assert_int_equal(config_write_defaults(&text), 0);
	c = config_parse(buf_str(&text), "f.yaml", &err);
	assert_string_equal(text_of(&err), "");
	assert_non_null(c);
	assert_int_equal(config_check(c, &err), 0);
	assert_int_equal(config_add_pod(d, "127.0.0.1:8000", &err), 0);
	config_write_yaml(c, &a);
	config_write_yaml(d, &b);
	assert_string_equal(text_of(&a), text_of(&b));
	config_free(c);
	config_free(d);
	buf_free(&text);
	buf_free(&a);
	buf_free(&b);
	buf_free(&err);
}

static void every_option_is_documented(void **state)
{
	struct buf help = { 0 }, rst = { 0 };

	assert_int_equal(config_write_help(&help), 0);
	assert_int_equal(config_write_rst(&rst), 0);
	assert_non_null(strstr(text_of(&help), "  memory.max: size 64MiB … 64TiB; default 2GiB\n"));
	assert_non_null(strstr(text_of(&help), "  pools[].discovery.static[].weight: number 0 … 100; default 1\n"));
	assert_non_null(strstr(text_of(&rst), "``workers`` (number 0 … 62; default 0; needs a restart)\n"));
	assert_null(strstr(text_of(&help), "kubernetes:"));
	buf_free(&help);
	buf_free(&rst);
}

static void the_command_line_makes_a_configuration(void **state)
{
	struct buf err = { 0 };
	struct config *c = config_defaults();

	assert_int_equal(config_add_listener(c, "127.0.0.1:1", &err), 0);
	assert_int_equal(config_add_listener(c, "127.0.0.1:2", &err), 0);
	assert_int_equal(c->nlisteners, 2);
	assert_string_equal(c->listeners[0].address, "127.0.0.1:1");
	assert_int_equal(config_set(c, "pools[0].model-path", "/m", &err), 0);
	assert_int_equal(config_add_pod(c, "h:1,role=decode,events=tcp://h:2,ranks=4,metrics=h:9/m", &err), 0);
	assert_int_equal(config_add_pod(c, "h:2", &err), 0);
	assert_int_equal(c->npools, 1);
	assert_int_equal(c->pools[0].npods, 2);
	assert_string_equal(c->pools[0].name, "default");
	assert_string_equal(c->pools[0].model_path, "/m");
	assert_int_equal(c->pools[0].pods[0].ranks, 4);
	assert_string_equal(c->pools[0].pods[0].metrics, "h:9/m");
	assert_int_equal(config_set(c, "memory.max", "1GiB", &err), 0);
	assert_int_equal(config_set(c, "pools[0].limits.queue", "7", &err), 0);
	assert_int_equal(config_set(c, "pools[0].models", "m", &err), 0);
	assert_int_equal(c->memory_max, 1 << 30);
	assert_int_equal(c->pools[0].queue, 7);
	assert_string_equal(c->pools[0].models[0], "m");
	assert_int_equal(buf_len(&err), 0);

	assert_int_equal(config_add_pod(c, "h:2", &err), -EINVAL);
	assert_int_equal(config_add_pod(c, "h:3,weight=200", &err), -EINVAL);
	assert_int_equal(config_add_pod(c, "h:3,weight", &err), -EINVAL);
	assert_int_equal(config_add_pod(c, "", &err), -EINVAL);
	assert_int_equal(config_add_listener(c, "x", &err), -EINVAL);
	assert_int_equal(config_set(c, "memory.max", "1", &err), -EINVAL);
	assert_int_equal(config_set(c, "wokers", "1", &err), -EINVAL);
	assert_int_equal(config_set(c, "pools[9].name", "1", &err), -EINVAL);
	assert_int_equal(config_set(c, "pools[1].nam", "1", &err), -EINVAL);
	assert_int_equal(config_set(c, "pools", "1", &err), -EINVAL);
	assert_int_equal(c->npools, 1);
	assert_int_equal(c->pools[0].npods, 2);
	assert_string_equal(text_of(&err),
			    "pod \"h:2\": is listed twice: keep one\n"
			    "pod \"h:3,weight=200\": weight: 200 is out of range, allowed: 0 … 100\n"
			    "pod \"h:3,weight\": \"weight\" has no value: write KEY=VALUE\n"
			    "pod \"\": \"\" is not HOST:PORT: write 10.0.0.1:8000, [fd00::1]:8000 or name:8000\n"
			    "listener: \"x\" is not an address with a port: write 0.0.0.0:8080, [::]:8080 or :8080\n"
			    "memory.max: 1 is out of range, allowed: 64MiB … 64TiB\n"
			    "wokers: unknown key, did you mean \"workers\"?\n"
			    "pools[9].name: pools has 1 elements, the next one is pools[1]\n"
			    "pools[1].nam: unknown key, did you mean \"name\"?\n"
			    "pools: cannot be set by a single value\n");
	config_free(c);
	buf_free(&err);
}

static void a_pods_file_is_a_list_of_pods(void **state)
{
	static const struct {
		const char *text;
		int r;
		unsigned n;
		const char *err;
	} rows[] = {
		{ "- 10.0.0.1:8000\n- {address: \"10.0.0.2:8000\", role: decode}\n", 0, 2, "" },
		{ "pods:\n  - 10.0.0.1:8000\n", 0, 1, "" },
		{ "", 0, 0, "" },
		{ "[]", 0, 0, "" },
		{ "- address: x\n", -EINVAL, 0,
		  ":1:12: pods[0].address: \"x\" is not HOST:PORT: write 10.0.0.1:8000, [fd00::1]:8000 or "
		  "name:8000\n" },
		{ "a: 1\n", -EINVAL, 0,
		  ":1:1: pods: is a mapping, expected a list: write it as [ … ] or as lines that begin with -\n" },
	};
	char file[] = "/tmp/kvs-pods-XXXXXX";

	close(mkstemp(file));
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct config_pod *pods = NULL;
		struct buf err = { 0 };
		unsigned n = 0;

		write_file(file, rows[i].text);
		assert_int_equal(config_load_pods(file, &pods, &n, &err), rows[i].r);
		assert_int_equal(n, rows[i].n);
		assert_string_equal(text_of(&err) + (rows[i].r ? strlen(file) : 0), rows[i].err);
		if (n == 2)
			assert_string_equal(pods[1].role, "decode");
		config_pods_free(pods, n);
		buf_free(&err);
	}
	unlink(file);
}

static void note(void *arg, const char *key, bool restart)
{
	buf_printf(arg, "%s%s\n", key, restart ? " restart" : "");
}

static void a_difference_names_its_keys(void **state)
{
	struct buf err = { 0 }, out = { 0 };
	struct config *a = parse(MINIMAL "workers: 1\n", &err), *b = parse(MINIMAL "workers: 1\n", &err);

	config_diff(a, b, note, &out);
	assert_string_equal(text_of(&out), "");
	config_set(b, "workers", "2", &err);
	config_set(b, "pools[0].limits.body", "1MiB", &err);
	config_set(b, "pools[0].models", "m", &err);
	config_add_pod(b, "x:1", &err);
	config_diff(a, b, note, &out);
	assert_string_equal(text_of(&out), "workers restart\npools[0].models restart\npools[0].discovery.static\n"
					   "pools[0].limits.body\n");
	config_free(a);
	config_free(b);
	buf_free(&out);
	buf_free(&err);
}

static void what_needs_no_restart_is_taken_over(void **state)
{
	struct buf err = { 0 }, out = { 0 };
	struct config *a = parse(MINIMAL, &err);
	struct config *b = parse("pools:\n"
				 "  - name: other\n"
				 "    models: [m]\n"
				 "    discovery: {static: [\"10.0.0.9:1\", \"10.0.0.8:1\"]}\n"
				 "    scheduling: {policy: p2c, tiers: {cpu: 0.8, disk: 0}, attention-tokens: 25000}\n"
				 "    limits: {retries: 0, retry-busy: false, first-byte: 9s, body: 1MiB}\n"
				 "workers: 3\n"
				 "datapath: {mode: relay}\n"
				 "log: {level: warn}\n",
				 &err);

	config_take(a, b);
	config_free(b);
	assert_string_equal(text_of(&err), "");
	assert_string_equal(a->pools[0].policy, "p2c");
	assert_true(a->pools[0].tier_cpu == 0.8 && a->pools[0].tier_disk == 0);
	assert_int_equal(a->pools[0].attention_tokens, 25000);
	assert_int_equal(a->pools[0].retries, 0);
	assert_false(a->pools[0].retry_busy);
	assert_int_equal(a->pools[0].first_byte, 9 * NS_PER_S);
	assert_int_equal(a->pools[0].body, 1 << 20);
	assert_string_equal(a->datapath_mode, "relay");
	assert_string_equal(a->log_level, "warn");
	assert_string_equal(a->pools[0].name, "default");
	assert_int_equal(a->pools[0].nmodels, 0);
	assert_int_equal(a->pools[0].npods, 1);
	assert_int_equal(a->workers, 0);
	/* All else that differs needs a restart, or is the pods. */
	b = parse(MINIMAL, &err);
	config_diff(a, b, note, &out);
	assert_null(strstr(text_of(&out), "restart"));
	config_free(a);
	config_free(b);
	buf_free(&out);
	buf_free(&err);
}

static void a_hostile_file_costs_little(void **state)
{
	struct buf text = { 0 }, err = { 0 };
	uint64_t start = time_mono();

	for (unsigned i = 0; i < (1 << 20); i++)
		buf_puts(&text, "[");
	assert_null(config_parse(buf_str(&text), "f.yaml", &err));
	buf_consume(&text, buf_len(&text));
	for (unsigned i = 0; i < 100000; i++)
		buf_printf(&text, "k%u: 1\n", i);
	assert_null(config_parse(buf_str(&text), "f.yaml", &err));
	buf_consume(&text, buf_len(&text));
	buf_puts(&text, "pools: [");
	for (unsigned i = 0; i < 60000; i++)
		buf_puts(&text, "{x: 1},");
	buf_puts(&text, "]");
	assert_null(config_parse(buf_str(&text), "f.yaml", &err));
	for (unsigned i = 0; i < (1 << 20); i++)
		buf_puts(&text, "#");
	assert_null(config_parse(buf_str(&text), "f.yaml", &err));
	assert_string_equal(text_of(&err), "f.yaml:1:17: nested too deeply, allowed: 16 levels\n"
					   "f.yaml:257:1: too many keys in one mapping, allowed: 256\n"
					   "f.yaml:1:229378: too many values in one file, allowed: 65536\n"
					   "f.yaml: larger than 1 MiB: not read\n");
	assert_true(time_mono() - start < 10 * NS_PER_S);
	buf_free(&text);
	buf_free(&err);
}

static void a_mistyped_key_of_set_is_told_what_the_file_s_is(void **state)
{
	static const struct {
		const char *key, *err;
	} rows[] = {
		{ "memory.mx", "memory.mx: unknown key, did you mean \"max\"?\n" },
		{ "memry.max", "memry: unknown key, did you mean \"memory\"?\n" },
		{ "retries", "retries: unknown key, it belongs to pools[].limits.retries\n" },
		{ "memory.elephant", "memory.elephant: unknown key, allowed here: max, index\n" },
		{ "memory", "memory: unknown key, allowed here: max, index\n" },
		{ "memory.", "memory.: unknown key, allowed here: max, index\n" },
		{ "", ": unknown key, allowed here: listeners, admin, control, workers, pools, datapath, "
		      "model-cache, memory, index, log, drain-timeout, decisions\n" },
		{ "pools[0].limits.retrys", "pools[0].limits.retrys: unknown key, did you mean \"retries\"?\n" },
		{ "pools[0].limts.retries", "pools[0].limts: unknown key, did you mean \"limits\"?\n" },
		{ "pools[0].discovery.dns.evnts",
		  "pools[0].discovery.dns.evnts: unknown key, did you mean \"events\"?\n" },
		{ "pools[0].discovery.static[0].wieght",
		  "pools[0].discovery.static[0].wieght: unknown key, did you mean \"weight\"?\n" },
		{ "pools[0].discovery.static[3].weight",
		  "pools[0].discovery.static[3].weight: discovery.static has 1 elements, the next one is "
		  "discovery.static[1]\n" },
		{ "pools.limits", "pools.limits: pools is a list, write pools[0].KEY\n" },
		{ "pools[x].name", "pools[x].name: pools is a list, write pools[0].KEY\n" },
		{ "pools[0", "pools[0: pools is a list, write pools[0].KEY\n" },
		{ "pools[0]", "pools[0]: pools is a list, write pools[0].KEY\n" },
	};
	struct config *c = config_defaults();
	struct buf err = { 0 };

	assert_int_equal(config_add_pod(c, "h:1", &err), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(config_set(c, rows[i].key, "1", &err), -EINVAL);
		assert_string_equal(text_of(&err), rows[i].err);
		buf_free(&err);
	}
	assert_int_equal(c->npools, 1);
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_duration_is_a_number_with_a_unit),
		cmocka_unit_test(a_size_says_whether_it_counts_by_1000_or_1024),
		cmocka_unit_test(values_are_written_as_people_write_them),
		cmocka_unit_test(a_typing_error_finds_its_word),
		cmocka_unit_test(an_empty_file_has_the_defaults),
		cmocka_unit_test(a_full_file_is_read),
		cmocka_unit_test(a_mistake_is_told_with_place_reason_and_remedy),
		cmocka_unit_test(the_policies_are_those_of_the_scheduler),
		cmocka_unit_test(all_mistakes_are_told_at_once),
		cmocka_unit_test(what_no_single_value_shows_is_checked),
		cmocka_unit_test(a_file_names_files_relative_to_itself),
		cmocka_unit_test(what_is_written_reads_back_the_same),
		cmocka_unit_test(the_written_defaults_are_the_defaults),
		cmocka_unit_test(every_option_is_documented),
		cmocka_unit_test(the_command_line_makes_a_configuration),
		cmocka_unit_test(a_mistyped_key_of_set_is_told_what_the_file_s_is),
		cmocka_unit_test(a_pods_file_is_a_list_of_pods),
		cmocka_unit_test(a_difference_names_its_keys),
		cmocka_unit_test(what_needs_no_restart_is_taken_over),
		cmocka_unit_test(a_hostile_file_costs_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
