/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/time.h"
#include "endpoint/endpoint.h"

static struct qsbr qsbr;

static struct endpoints *table(void)
{
	struct pod_spec s = { .weight = 1, .ranks = 1 };
	struct endpoints *e;

	net_addr_parse(STR("10.0.0.1:8000"), &s.addr);
	qsbr_init(&qsbr, 1);
	e = endpoints_new(&qsbr);
	endpoints_set(e, 0, "test", &s, 1);
	return e;
}

static struct pod *pod_of(struct endpoints *e)
{
	return container_of(endpoints_pods(e)->next, struct pod, link);
}

/* Scripts of outcomes. Letters: o 2xx, c 4xx, b busy (the number that follows, if any, is Retry-After in s), s 5xx,
 * x connection refused, g garbage, t cut stream. '+N' waits N seconds. '!' and '.': now out (ejected or backing off),
 * now usable. '~': usable as last resort only. Field case H1 first. */
static void outcomes_move_a_pod_as_documented(void **state)
{
	static const char *const scripts[] = {
		"cccccccccccccccccccc.o.",
		"b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9~+8~+1.o.",
		"scscscsc.s!c!",
		"bbbbbbbbbbbbbbbbbbbb.", /* without Retry-After */
		"b100000~+59~+1.",	 /* no pod decides to stay away for a day */
		"b10b2+5~+5.",		 /* the later end counts */
		"xxxx.ox.xxx.x!",	 /* 2xx begins the count anew */
		"xsgtx!",		 /* all kinds of failure count together */
		"bsssss!",
		"xxxxx!+9!+1.x!+19!+1.x!+39!+1.x!+79!+1.x!+159!+1.x!+299!+1.x!+299!+1.", /* doubling */
		"xxxxx!+10.o.xxxx.x!+9!+1.",  /* a good trial forgets it all */
		"xxxxxxxxxxxxxxxxxxx!+9!+1.", /* all of a pod's streams break at once: one ejection */
		"xxxxx!ooo!+9!+1.x!+19!+1.",  /* what ends well while it is out is from before */
		"xxxxx!+10.c.x!",	      /* a 4xx is no recovery */
		"xxxxx!b60!+10~+49~+1.",      /* busy and out are two things */
	};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		static const char letters[] = "ocbsxgt";
		static const enum pod_outcome outcomes[] = { POD_OK,	       POD_CLIENT_ERROR,   POD_BUSY,
							     POD_SERVER_ERROR, POD_CONNECT_FAILED, POD_GARBAGE,
							     POD_CUT };
		struct endpoints *e = table();
		struct pod *p = pod_of(e);
		uint64_t now = 1000 * NS_PER_S;

		for (const char *at = scripts[i]; *at;) {
			const char *letter = strchr(letters, *at);
			char *end = (char *)at + 1;
			uint64_t v = at[1] >= '0' && at[1] <= '9' ? strtoull(at + 1, &end, 10) : 0;

			if (letter)
				pod_result(p, outcomes[letter - letters], (uint32_t)v, now);
			else if (*at == '+')
				now += v * NS_PER_S;
			else if (pod_usable(p, now) != (*at == '.') || pod_last_resort(p, now) != (*at != '!'))
				fail_msg("'%s' at character %ld", scripts[i], (long)(at - scripts[i]));
			at = end;
		}
		endpoints_free(e);
	}
}

static void ejections_and_garbage_are_counted(void **state)
{
	struct endpoints *e = table();
	struct pod *p = pod_of(e);

	for (unsigned i = 0; i < 7; i++)
		pod_result(p, POD_GARBAGE, 0, NS_PER_S);
	assert_int_equal(p->garbage, 7);
	assert_int_equal(p->ejections, 1);
	assert_int_equal(p->fails, 5);
	assert_int_equal(p->eject_until, 11 * NS_PER_S);
	assert_int_equal(pod_down_now(p, 2 * NS_PER_S), POD_DOWN_EJECTED);
	assert_int_equal(pod_down_now(p, 11 * NS_PER_S), 0);
	assert_true(p->down & POD_DOWN_EJECTED); /* on trial */
	pod_result(p, POD_OK, 0, 11 * NS_PER_S);
	assert_int_equal(p->down, 0);
	endpoints_free(e);
}

static void every_reason_keeps_requests_away(void **state)
{
	static const enum pod_down bits[] = { POD_DOWN_HEALTH, POD_DOWN_DRAINED, POD_DOWN_REMOVED, POD_DOWN_ASLEEP };
	struct endpoints *e = table();
	struct pod *p = pod_of(e);
	struct pod_spec s = p->spec;

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		pod_set_down(p, bits[i], true);
		assert_false(pod_usable(p, 1));
		assert_false(pod_last_resort(p, 1));
		pod_result(p, POD_OK, 0, 1);
		assert_false(pod_usable(p, 1));
		pod_set_down(p, bits[i], false);
		assert_true(pod_usable(p, 1));
	}
	s.weight = 0;
	assert_int_equal(endpoints_set(e, 0, "test", &s, 1), 0);
	assert_false(pod_usable(p, 1));
	assert_false(pod_last_resort(p, 1));
	endpoints_free(e);
}

/* Field case K3: the metric is the only sign of it. */
static void a_sleeping_engine_gets_no_requests(void **state)
{
	struct endpoints *e = table();
	struct pod *p = pod_of(e);

	pod_set_sample(p, &(struct pod_sample){ .at_ns = 1, .asleep = true });
	assert_false(pod_usable(p, 1));
	pod_set_sample(p, &(struct pod_sample){ .at_ns = 2, .asleep = false });
	assert_true(pod_usable(p, 1));
	endpoints_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(outcomes_move_a_pod_as_documented),
		cmocka_unit_test(ejections_and_garbage_are_counted),
		cmocka_unit_test(every_reason_keeps_requests_away),
		cmocka_unit_test(a_sleeping_engine_gets_no_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
