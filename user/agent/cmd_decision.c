/* SPDX-License-Identifier: Apache-2.0
 * kvsteer decision …: the decisions that are kept, and each new one to those who follow.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "agent/commands.h"
#include "base/time.h"

#define TAIL_EVERY (100 * NS_PER_MS)

union record {
	struct decision d;
	char room[DECISION_SIZE];
};

enum ctl_code cmd_decision_show(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	const char *id = json_string_value(json_object_get(args, "request"));
	union record rec;

	if (!id) {
		buf_puts(err, "\"request\" is missing: the x-request-id of an answer");
		return CTL_USAGE;
	}
	if (proxy_decision(a->proxy, str_of(id), &rec.d)) {
		buf_printf(err, "no decision for request \"%s\" is kept (the last %" PRIu64 " are)", id,
			   a->cfg->decisions);
		return CTL_NOT_FOUND;
	}
	decision_write(&rec.d, w);
	return CTL_OK;
}

struct tail {
	struct list link;
	struct agent *a;
	struct ctl_conn *c;
};

static void tail_closed(void *arg, struct ctl_conn *c)
{
	struct tail *t = arg;

	list_del(&t->link);
	free(t);
}

static void tail_fire(struct loop_timer *timer)
{
	struct agent *a = container_of(timer, struct agent, tail);
	union record rec;

	while (proxy_next_decision(a->proxy, &a->tail_serial, &rec.d)) {
		struct buf b = { 0 };
		struct jw w;

		jw_init(&w, &b);
		decision_write(&rec.d, &w);
		if (!jw_err(&w))
			list_for_each_safe (it, tmp, &a->tails)
				ctl_conn_line(container_of(it, struct tail, link)->c, buf_str(&b));
		buf_free(&b);
	}
	if (!list_empty(&a->tails))
		loop_timer_set(a->loop, timer, loop_now(a->loop) + TAIL_EVERY);
}

void agent_tails_init(struct agent *a)
{
	list_init(&a->tails);
	loop_timer_init(&a->tail, tail_fire);
}

/* The newest <n> at once, then each new one, as lines: the command itself has no answer of its own. */
enum ctl_code cmd_decision_tail(void *arg, json_t *args, struct jw *w, struct buf *err, struct ctl_conn *c)
{
	struct agent *a = arg;
	json_int_t n = json_integer_value(json_object_get(args, "n"));
	uint64_t newest = proxy_decision_serial(a->proxy);
	struct tail *t = calloc(1, sizeof(*t));

	if (!t) {
		buf_puts(err, "out of memory");
		return CTL_FAILED;
	}
	t->a = a;
	t->c = c;
	if (list_empty(&a->tails)) {
		a->tail_serial = n > 0 && (uint64_t)n < newest ? newest - (uint64_t)n : n > 0 ? 0 : newest;
		loop_timer_set(a->loop, &a->tail, loop_now(a->loop) + NS_PER_MS);
	}
	list_add_tail(&a->tails, &t->link);
	ctl_conn_keep(c, tail_closed, t);
	return CTL_OK;
}
