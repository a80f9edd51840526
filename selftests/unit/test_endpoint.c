/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rand.h"
#include "base/time.h"
#include "endpoint/endpoint.h"

static struct qsbr qsbr;
static char hooked[512]; /* "+NAME", "-NAME", "~NAME" in the order of calls */

static void hook_note(char sign, struct pod *p)
{
	size_t n = strlen(hooked);

	snprintf(hooked + n, sizeof(hooked) - n, "%c%s#%u ", sign, p->name, p->generation);
}

static void on_add(void *arg, struct pod *p)
{
	hook_note('+', p);
}

static void on_remove(void *arg, struct pod *p)
{
	hook_note('-', p);
}

static void on_change(void *arg, struct pod *p)
{
	hook_note('~', p);
}

static struct endpoints *table(void)
{
	struct endpoints *e;

	qsbr_init(&qsbr, 8);
	e = endpoints_new(&qsbr);
	assert_non_null(e);
	hooked[0] = '\0';
	endpoints_hook(e, (struct endpoints_hooks){ on_add, on_remove, on_change, NULL });
	return e;
}

/* Pods "1" … "9" are 10.0.0.N:80. */
static struct pod_spec spec_of(char digit)
{
	struct pod_spec s = { .weight = 1, .ranks = 1 };
	char addr[] = "10.0.0.0:80";

	addr[7] = digit;
	assert_int_equal(net_addr_parse(str_of(addr), &s.addr), 0);
	return s;
}

static int set(struct endpoints *e, unsigned pool, const char *source, const char *digits)
{
	struct pod_spec s[16];
	unsigned n = 0;

	for (; digits[n]; n++)
		s[n] = spec_of(digits[n]);
	hooked[0] = '\0';
	return endpoints_set(e, pool, source, s, n);
}

static struct pod *pod(struct endpoints *e, char digit)
{
	char addr[] = "10.0.0.0:80";

	addr[7] = digit;
	return endpoints_find(e, str_of(addr));
}

static void a_set_is_made_so(void **state)
{
	static const struct {
		unsigned pool;
		const char *source, *pods;
		int changes;
		const char *hooks;
		const char *table; /* POOL:POD … in the table's order */
	} steps[] = {
		{ 0, "static", "12", 2, "+10.0.0.1:80#1 +10.0.0.2:80#1 ", "0:1 0:2 " },
		{ 0, "static", "21", 0, "", "0:1 0:2 " },
		{ 0, "static", "2332", 2, "-10.0.0.1:80#1 +10.0.0.3:80#1 ", "0:2 0:3 " },
		{ 0, "operator", "34", 1, "+10.0.0.4:80#1 ", "0:2 0:3 0:4 " },
		{ 0, "static", "", 1, "-10.0.0.2:80#1 ", "0:3 0:4 " },
		{ 1, "static", "34", 2, "+10.0.0.3:80#1 +10.0.0.4:80#1 ", "0:3 0:4 1:3 1:4 " },
		{ 0, "operator", "1", 3, "-10.0.0.3:80#1 -10.0.0.4:80#1 +10.0.0.1:80#2 ", "1:3 1:4 0:1 " },
		{ 0, "static", "1", 0, "", "1:3 1:4 0:1 " },
		{ 0, "operator", "", 0, "", "1:3 1:4 0:1 " },
		{ 0, "static", "", 1, "-10.0.0.1:80#2 ", "1:3 1:4 " },
		{ 0, "static", "1", 1, "+10.0.0.1:80#3 ", "1:3 1:4 0:1 " },
	};
	struct endpoints *e = table();

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		char got[256] = "";

		assert_int_equal(set(e, steps[i].pool, steps[i].source, steps[i].pods), steps[i].changes);
		assert_string_equal(hooked, steps[i].hooks);
		list_for_each (it, endpoints_pods(e)) {
			struct pod *p = container_of(it, struct pod, link);
			size_t n = strlen(got);

			snprintf(got + n, sizeof(got) - n, "%u:%c ", p->pool, p->name[7]);
		}
		assert_string_equal(got, steps[i].table);
	}
	endpoints_free(e);
}

static void a_changed_spec_is_taken_over_in_place(void **state)
{
	struct endpoints *e = table();
	struct pod_spec s = spec_of('1'), twice[2];
	struct pod *p;

	s.weight = 1000;
	s.ranks = 99;
	assert_int_equal(endpoints_set(e, 0, "a", &s, 1), 1);
	p = pod(e, '1');
	assert_int_equal(p->spec.weight, 100);
	assert_int_equal(p->spec.ranks, POD_RANKS_MAX);
	assert_string_equal(p->ip, "10.0.0.1");

	hooked[0] = '\0';
	s.weight = 7;
	s.role = ROLE_DECODE;
	assert_int_equal(endpoints_set(e, 0, "a", &s, 1), 0);
	assert_int_equal(pod_weight(p), 7);
	assert_int_equal(pod_role(p), ROLE_DECODE);
	assert_string_equal(hooked, "");

	strcpy(s.events, "tcp://10.0.0.1:5557");
	assert_int_equal(endpoints_set(e, 0, "a", &s, 1), 0);
	assert_string_equal(hooked, "~10.0.0.1:80#1 ");
	assert_string_equal(p->spec.events, "tcp://10.0.0.1:5557");

	s.weight = 9; /* the source that came second does not decide */
	assert_int_equal(endpoints_set(e, 0, "b", &s, 1), 0);
	assert_int_equal(pod_weight(p), 7);
	assert_int_equal(endpoints_set(e, 0, "a", NULL, 0), 0);
	assert_int_equal(endpoints_set(e, 0, "b", &s, 1), 0);
	assert_int_equal(pod_weight(p), 9);

	twice[0] = twice[1] = s; /* of two for one address the first counts */
	twice[1].weight = 3;
	assert_int_equal(endpoints_set(e, 0, "b", twice, 2), 0);
	assert_int_equal(pod_weight(p), 9);

	hooked[0] = '\0';
	s.ranks = 2;
	assert_int_equal(endpoints_set(e, 0, "b", &s, 1), 2);
	assert_string_equal(hooked, "-10.0.0.1:80#1 +10.0.0.1:80#2 ");
	assert_int_equal(pod(e, '1')->spec.ranks, 2);
	endpoints_free(e);
}

static void the_table_ends_at_its_limit(void **state)
{
	static struct pod_spec s[ENDPOINTS_PODS_MAX + 3];
	struct endpoints *e = table();
	uint64_t mask[4];
	char addr[32];

	for (unsigned i = 0; i < ENDPOINTS_PODS_MAX + 3; i++) {
		snprintf(addr, sizeof(addr), "10.0.%u.%u:80", i / 200, i % 200);
		net_addr_parse(str_of(addr), &s[i].addr);
	}
	assert_int_equal(endpoints_set(e, 0, "a", s, ENDPOINTS_PODS_MAX + 3), -ENOSPC);
	endpoints_publish(e);
	assert_int_equal(endpoints_snapshot(e)->npods, ENDPOINTS_PODS_MAX);
	assert_int_equal(snapshot_any(endpoints_snapshot(e), UINT_MAX, mask), ENDPOINTS_PODS_MAX);
	assert_true(mask[0] == UINT64_MAX && mask[3] == UINT64_MAX);
	/* Those that leave make room in the same step. */
	assert_int_equal(endpoints_set(e, 0, "a", s + 3, ENDPOINTS_PODS_MAX), 6);
	assert_int_equal(endpoints_set(e, 5000, "a", s, 1), -EINVAL);
	endpoints_free(e);
}

/* "NAME=ROOT", "NAME" for a root of its own name, "NAME^" for an adapter; separated by spaces. */
static void models(struct pod *p, const char *text)
{
	char copy[256], *names[16], *save = NULL;
	const char *roots[16];
	unsigned n = 0;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save), n++) {
		char *eq = strchr(w, '='), *adapter = strchr(w, '^');

		names[n] = w;
		roots[n] = eq ? eq + 1 : adapter ? NULL : w;
		if (eq)
			*eq = '\0';
		if (adapter)
			*adapter = '\0';
	}
	assert_int_equal(pod_set_models(p, names, roots, n), 0);
}

static void names_lead_to_pods(void **state)
{
	static const struct {
		const char *why;
		const char *pools[2];	   /* pods of each pool */
		const char *configured[2]; /* names, or NULL */
		const char *listed[10];	   /* by pod */
		const char *routes;	   /* "NAME(BASE)POOL:PODS " … */
	} cases[] = {
		{ "what pods list", { "12" }, { 0 }, { [1] = "m", [2] = "m" }, "m(m)0:12 " },
		{ "nothing is known", { "12" }, { 0 }, { 0 }, "" },
		{ "aliases share the root's namespace (field case D3)",
		  { "12" },
		  { 0 },
		  { [1] = "alias-b=org/M alias-a=org/M", [2] = "alias-a=org/M" },
		  "alias-a(org/M)0:12 alias-b(org/M)0:1 " },
		{ "roots that differ share nothing",
		  { "12" },
		  { 0 },
		  { [1] = "m=/models/a", [2] = "m=/models/b" },
		  "m(m)0:12 " },
		{ "an adapter has its own namespace",
		  { "12" },
		  { 0 },
		  { [1] = "m=org/M sql^", [2] = "m=org/M" },
		  "m(org/M)0:12 sql(sql)0:1 " },
		{ "configured names route before any pod has answered",
		  { "12" },
		  { "b a" },
		  { 0 },
		  "a(a)0:12 b(b)0:12 " },
		{ "a silent pod serves what is configured, another what it lists",
		  { "123" },
		  { "a b" },
		  { [1] = "a=org/M", [2] = "b=org/M" },
		  "a(org/M)0:13 b(org/M)0:23 " },
		{ "configured names hide others, but not adapters",
		  { "1" },
		  { "a" },
		  { [1] = "a=org/M secret=org/M sql^" },
		  "a(org/M)0:1 sql(sql)0:1 " },
		{ "a configured name without pods is known all the same", { "" }, { "a" }, { 0 }, "a(a)0: " },
		{ "two pools", { "1", "2" }, { 0 }, { [1] = "m", [2] = "n" }, "m(m)0:1 n(n)1:2 " },
		{ "a name of two pools is the first's", { "1", "2" }, { 0 }, { [1] = "m", [2] = "m" }, "m(m)0:1 " },
		{ "unless that has no pod for it", { "", "2" }, { "m", "m" }, { [2] = "m" }, "m(m)1:2 " },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct endpoints *e = table();
		const struct snapshot *s;
		char got[512] = "";
		size_t n = 0;

		for (unsigned pool = 0; pool < 2; pool++) {
			char copy[64], *names[8], *save = NULL;
			unsigned k = 0;

			snprintf(copy, sizeof(copy), "%s", cases[i].configured[pool] ? cases[i].configured[pool] : "");
			for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
				names[k++] = w;
			assert_int_equal(endpoints_pool_models(e, pool, names, k), 0);
			if (cases[i].pools[pool])
				set(e, pool, "static", cases[i].pools[pool]);
		}
		for (unsigned d = 1; d < 10; d++)
			if (cases[i].listed[d])
				models(pod(e, (char)('0' + d)), cases[i].listed[d]);
		assert_int_equal(endpoints_publish(e), 0);
		s = endpoints_snapshot(e);
		for (unsigned r = 0; r < s->nroutes; r++) {
			const struct route *t = &s->routes[r];

			assert_ptr_equal(snapshot_route(s, str_of(t->model)), t);
			n += (size_t)snprintf(got + n, sizeof(got) - n, "%s(%s)%u:", t->model, t->base, t->pool);
			for (unsigned k = 0; k < s->npods; k++)
				if (t->pods_mask[k / 64] >> (k % 64) & 1)
					got[n++] = s->pods[k]->name[7];
			got[n++] = ' ';
		}
		if (strcmp(got, cases[i].routes) != 0)
			fail_msg("%s: got '%s', want '%s'", cases[i].why, got, cases[i].routes);
		assert_null(snapshot_route(s, STR("")));
		assert_null(snapshot_route(s, STR("zzz")));
		assert_null(snapshot_route(s, STR("mm")));
		endpoints_free(e);
	}
}

static void a_request_without_a_model_may_go_anywhere(void **state)
{
	struct endpoints *e = table();
	uint64_t mask[4] = { 9, 9, 9, 9 };

	set(e, 0, "static", "12");
	set(e, 1, "static", "3");
	models(pod(e, '3'), "m");
	endpoints_publish(e);
	assert_int_equal(endpoints_snapshot(e)->nlisted, 1);
	assert_int_equal(snapshot_any(endpoints_snapshot(e), 0, mask), 2);
	assert_int_equal(mask[0], 3);
	assert_int_equal(mask[1] | mask[2] | mask[3], 0);
	assert_int_equal(snapshot_any(endpoints_snapshot(e), 1, mask), 1);
	assert_int_equal(mask[0], 4);
	assert_int_equal(snapshot_any(endpoints_snapshot(e), UINT_MAX, mask), 3);
	assert_int_equal(snapshot_any(endpoints_snapshot(e), 2, mask), 0);
	endpoints_free(e);
}

static void models_are_replaced_as_a_whole(void **state)
{
	struct endpoints *e = table();
	char *many[POD_MODELS_MAX + 1];
	struct pod *p;

	set(e, 0, "static", "1");
	p = pod(e, '1');
	models(p, "a=r1 b=r2 c^");
	assert_string_equal(p->model_root, "r1");
	models(p, "d^");
	assert_int_equal(p->nmodels, 1);
	assert_string_equal(p->models[0], "d");
	assert_null(p->roots[0]);
	assert_string_equal(p->model_root, "");
	for (unsigned i = 0; i <= POD_MODELS_MAX; i++)
		many[i] = (char *)"x";
	assert_int_equal(pod_set_models(p, many, NULL, POD_MODELS_MAX + 1), -E2BIG);
	assert_int_equal(p->nmodels, POD_MODELS_MAX);
	endpoints_free(e);
}

static void a_snapshot_stays_as_it_was(void **state)
{
	struct endpoints *e = table();
	const struct snapshot *s;
	struct pod *one;

	assert_int_equal(endpoints_snapshot(e)->npods, 0); /* there is one from the start */
	set(e, 0, "static", "12");
	assert_int_equal(endpoints_snapshot(e)->npods, 0);
	one = pod(e, '1');
	assert_true(isnan(one->sample.waiting) && one->sample.at_ns == 0);
	pod_set_sample(one, &(struct pod_sample){ .at_ns = 5, .waiting = 3 });
	models(one, "m");
	endpoints_publish(e);

	qsbr_enter(&qsbr, 2);
	s = endpoints_snapshot(e);
	pod_set_sample(one, &(struct pod_sample){ .at_ns = 6, .waiting = 4 });
	models(one, "n");
	set(e, 0, "static", "2");
	for (unsigned i = 0; i < 5; i++)
		endpoints_publish(e);
	assert_int_equal(s->npods, 2);
	assert_ptr_equal(s->pods[0], one);
	assert_true(s->samples[0].waiting == 3);
	assert_true(isnan(s->paces[0].ttft));
	assert_non_null(snapshot_route(s, STR("m")));
	assert_null(snapshot_route(s, STR("n")));
	assert_int_equal(one->refs, 1); /* the table's is gone, the snapshot's is left */
	qsbr_leave(&qsbr, 2);
	endpoints_publish(e);
	assert_int_equal(endpoints_snapshot(e)->npods, 1);
	assert_int_equal(endpoints_snapshot(e)->serial, 7);
	endpoints_free(e);
}

/* --- many threads: run it with SANITIZE=thread --- */

#define WORKERS 3
#define TURNS	600

static struct endpoints *shared;
static atomic_bool stop;

static void *worker(void *arg)
{
	unsigned id = (unsigned)(uintptr_t)arg;
	struct charge c[16] = { 0 };
	struct rng r = { id };
	uintptr_t done = 0;
	uint64_t now;

	while (!atomic_load(&stop)) {
		struct charge *it = &c[rng_below(&r, 16)];
		const struct snapshot *s;

		now = time_mono();
		if (it->pod) {
			if (rng_below(&r, 4))
				ledger_first(it, now);
			pod_result(it->pod, rng_below(&r, 3) ? POD_OK : POD_SERVER_ERROR, 0, now);
			ledger_release(it, false, now);
			done++;
			continue;
		}
		qsbr_enter(&qsbr, id);
		s = endpoints_snapshot(shared);
		if (s->npods) {
			struct pod *p = s->pods[rng_below(&r, s->npods)];
			const struct route *t = snapshot_route(s, STR("m"));
			struct ledger_view v;
			double sum_s, sum_t;

			ledger_read(p, now, &v);
			ledger_read_pool(p, &sum_s, &sum_t);
			if (pod_usable(p, now) || (t && pod_role(p) == ROLE_BOTH))
				ledger_charge(p, it, 0.001, 1000, 1000, now);
		}
		qsbr_leave(&qsbr, id);
	}
	for (unsigned i = 0; i < 16; i++) {
		done += c[i].pod != NULL;
		ledger_release(&c[i], true, time_mono());
	}
	return (void *)done;
}

/* <n> of a tenth of a second each, <gaps> of a hundredth. */
static bool look(struct pod *p, struct pod_times *t, unsigned n, unsigned gaps)
{
	t->ttft_n += n;
	t->ttft_ns += n * (NS_PER_S / 10);
	t->gap_n += gaps;
	t->gap_ns += gaps * (NS_PER_S / 100);
	return pod_set_times(p, t);
}

static void a_pod_s_pace_is_that_of_late(void **state)
{
	struct endpoints *e = table();
	struct pod *p;
	struct pod_times t = { .ttft_n = 1000, .ttft_ns = 1000 * NS_PER_S, .gap_n = 9, .gap_ns = 9 };

	set(e, 0, "static", "1");
	p = pod(e, '1');
	assert_true(isnan(p->pace.ttft) && isnan(p->pace.gap));
	assert_false(look(p, &t, 0, 0)); /* what was before this process does not count */
	assert_true(isnan(p->pace.ttft));
	assert_true(look(p, &t, 3, 0));
	assert_true(fabs(p->pace.ttft - 0.1) < 1e-9 && isnan(p->pace.gap));
	assert_true(look(p, &t, 0, 50));
	assert_true(fabs(p->pace.gap - 0.01) < 1e-9);
	endpoints_publish(e);
	assert_true(endpoints_snapshot(e)->paces[0].gap == p->pace.gap);
	/* Slower now: a minute later the old times hardly count. */
	for (unsigned i = 0; i < 60; i++) {
		t.gap_ns += NS_PER_S / 5;
		look(p, &t, 0, 10);
	}
	assert_true(p->pace.gap > 0.027 && p->pace.gap < 0.03);
	/* The counts begin anew. */
	t = (struct pod_times){ 0 };
	look(p, &t, 1, 0);
	assert_true(p->pace.ttft > 0.09 && p->pace.ttft < 0.11);
	for (unsigned i = 0; i < 60; i++)
		look(p, &t, 0, 0);
	assert_true(isnan(p->pace.ttft) && isnan(p->pace.gap));
	endpoints_free(e);
}

static void workers_and_control_do_not_meet(void **state)
{
	static const char *const sets[] = { "12", "123", "3", "1234", "", "4321" };
	pthread_t t[WORKERS];
	uintptr_t done = 0;

	shared = table();
	endpoints_hook(shared, (struct endpoints_hooks){ 0 });
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, worker, (void *)(uintptr_t)i), 0);
	for (unsigned turn = 0; turn < TURNS; turn++) {
		set(shared, 0, "static", sets[turn % 6]);
		list_for_each (it, endpoints_pods(shared)) {
			struct pod *p = container_of(it, struct pod, link);

			if (turn % 3)
				models(p, "m=root");
			pod_set_sample(p, &(struct pod_sample){ .at_ns = turn, .asleep = turn % 5 == 0 });
		}
		endpoints_publish(shared);
		sched_yield();
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < WORKERS; i++) {
		void *ret;

		pthread_join(t[i], &ret);
		done += (uintptr_t)ret;
	}
	assert_true(done > 0);
	set(shared, 0, "static", "1234");
	list_for_each (it, endpoints_pods(shared)) {
		struct pod *p = container_of(it, struct pod, link);

		assert_int_equal(p->ledger.n, 0);
		assert_int_equal(p->ledger.waiting, 0);
		assert_true(p->ledger.backlog == 0);
	}
	endpoints_free(shared);
}

/* Not a test: with KVS_BENCH set, what publishing 100 pods and reading their ledgers costs. */
static void bench(void)
{
	static struct pod_spec s[100];
	struct endpoints *e = table();
	uint64_t t;
	char addr[32];

	endpoints_hook(e, (struct endpoints_hooks){ 0 });
	for (unsigned i = 0; i < 100; i++) {
		snprintf(addr, sizeof(addr), "10.0.0.%u:80", i);
		net_addr_parse(str_of(addr), &s[i].addr);
		s[i].weight = 1;
	}
	endpoints_set(e, 0, "a", s, 100);
	list_for_each (it, endpoints_pods(e))
		models(container_of(it, struct pod, link), "m=r a=r lora^");
	t = time_mono();
	for (unsigned i = 0; i < 1000; i++)
		endpoints_publish(e);
	printf("publish %.1f us\n", (double)(time_mono() - t) / 1e6);
	t = time_mono();
	for (unsigned i = 0; i < 1000; i++) {
		const struct snapshot *v = endpoints_snapshot(e);

		for (unsigned k = 0; k < v->npods; k++) {
			struct ledger_view view;

			if (pod_usable(v->pods[k], t))
				ledger_read(v->pods[k], t, &view);
		}
	}
	printf("read 100 ledgers %.1f us\n", (double)(time_mono() - t) / 1e6);
	endpoints_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_is_made_so),
		cmocka_unit_test(a_changed_spec_is_taken_over_in_place),
		cmocka_unit_test(the_table_ends_at_its_limit),
		cmocka_unit_test(names_lead_to_pods),
		cmocka_unit_test(a_request_without_a_model_may_go_anywhere),
		cmocka_unit_test(models_are_replaced_as_a_whole),
		cmocka_unit_test(a_snapshot_stays_as_it_was),
		cmocka_unit_test(a_pod_s_pace_is_that_of_late),
		cmocka_unit_test(workers_and_control_do_not_meet),
	};

	if (getenv("KVS_BENCH"))
		bench();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
