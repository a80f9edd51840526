/* SPDX-License-Identifier: Apache-2.0
 * The truth meter's place: answers from the workers' rings into their rows, once a second; a verdict into the log, into
 * the pod's doubts for the workers and to the events thread.
 */
#include <inttypes.h>
#include <stdio.h>

#include "agent/agent.h"
#include "base/log.h"
#include "model/encoder.h"

static struct pod *pod_by_id(struct agent *a, uint32_t id)
{
	list_for_each (it, endpoints_pods(a->endpoints)) {
		struct pod *p = container_of(it, struct pod, link);

		if (p->id == id)
			return p;
	}
	return NULL;
}

/* The name of a namespace that a worker has met. False: no route leads there any more. */
static bool name_of(struct agent *a, uint64_t model, char *ret, size_t n)
{
	const struct snapshot *s;
	bool found = false;

	qsbr_enter(&a->qsbr, a->reader);
	s = endpoints_snapshot(a->endpoints);
	for (unsigned i = 0; s && i < s->nroutes && !found; i++) {
		found = truth_model(s->routes[i].base) == model;
		if (found)
			str_copy(ret, n, s->routes[i].base);
	}
	qsbr_leave(&a->qsbr, a->reader);
	return found;
}

static void take(struct agent *a, const struct truth_sample *s)
{
	struct truth_row *row = truth_find(a->truth, s->pod, s->model);
	char name[TRUTH_NAME];

	if (!row && pod_by_id(a, s->pod) && name_of(a, s->model, name, sizeof(name)))
		row = truth_add(a->truth, s->pod, s->model, name);
	if (row)
		truth_feed(row, s, loop_now(a->loop));
}

static void say(struct agent *a, const struct pod *p, const struct truth_row *row, enum truth_kind kind,
		enum truth_verdict is)
{
	struct truth_view v;
	char seen[96];

	truth_look(row, kind, &v);
	if (is == TRUTH_ROSE) {
		log_info("predictions agree with the pod's reports again", "pod", p->name, "model", row->name, "of",
			 truth_kind_name(kind));
		return;
	}
	if (truth_cause_quiet(v.cause))
		return;
	snprintf(seen, sizeof(seen), "%u of %u answers off, %" PRIu64 " tokens predicted, %" PRIu64 " reported",
		 row->w[kind].fell.off, row->w[kind].fell.n, row->w[kind].fell.predicted, row->w[kind].fell.reported);
	log_warn("predictions do not agree with what the pod reports", "pod", p->name, "model", row->name, "of",
		 truth_kind_name(kind), "cause", truth_cause_name(v.cause), "seen", seen, "why",
		 truth_cause_text(v.cause), "fix", truth_cause_fix(v.cause), "matched",
		 a->cfg->pools[p->pool].drift_fall_back ? "approximately" : "as before");
}

/* All doubts of <p>, for the workers. Those behind POD_DOUBTS_MAX are only told. */
static void doubt(struct agent *a, struct pod *p)
{
	bool was = p->ndoubts > 0;
	unsigned n = 0;

	list_for_each (it, truth_rows(a->truth)) {
		const struct truth_row *row = container_of(it, struct truth_row, link);
		struct pod_doubt d = { .model = row->model };

		for (unsigned k = 0; k < TRUTH_KINDS && row->pod == p->id; k++) {
			d.kinds |= (uint32_t)row->w[k].doubted << k;
			d.scale[k] = row->w[k].scale;
		}
		if (d.kinds && n < POD_DOUBTS_MAX && a->cfg->pools[p->pool].drift_fall_back)
			p->doubts[n++] = d;
	}
	p->ndoubts = n;
	if (was != (n > 0))
		events_doubt(a->events, p, n > 0);
	loop_defer(a->loop, &a->publish);
}

static void judge(struct agent *a, struct pod *p, struct truth_row *row)
{
	const struct config_pool *c = &a->cfg->pools[p->pool];
	const struct vocab *v = a->shared.pools[p->pool].vocab;
	struct truth_rule rule = { c->drift, (uint32_t)c->drift_samples };
	struct truth_facts facts = {
		.block = p->sample.block_size,
		.event_block = atomic_load_explicit(&p->event_block, memory_order_relaxed),
		.told = atomic_load_explicit(&p->told, memory_order_relaxed),
		.replay = p->spec.replay[0] != '\0',
		.hybrid = atomic_load_explicit(&p->hybrid, memory_order_relaxed),
		.no_encoder = v && vocab_no_encoder(v),
	};

	truth_told(row, facts.told);
	for (unsigned k = 0; k < TRUTH_KINDS; k++) {
		enum truth_verdict is = truth_judge(row, (enum truth_kind)k, &rule, &facts);

		if (is == TRUTH_SAME)
			continue;
		if (is != TRUTH_OTHER_SCALE)
			say(a, p, row, (enum truth_kind)k, is);
		doubt(a, p);
	}
}

void meter_look(struct agent *a)
{
	struct truth_sample s;

	while (truth_take(a->shared.truth, a->workers, &s))
		take(a, &s);
	list_for_each (it, truth_rows(a->truth)) {
		struct truth_row *row = container_of(it, struct truth_row, link);
		struct pod *p = pod_by_id(a, row->pod);

		if (p)
			judge(a, p, row);
	}
}

void meter_forget(struct agent *a, const struct pod *p)
{
	truth_forget(a->truth, p->id);
}

void meter_respecified(struct agent *a, struct pod *p)
{
	if (p->ndoubts)
		events_doubt(a->events, p, true);
}

void meter_each(struct agent *a, const struct pod *p,
		void (*each)(void *arg, const struct truth_row *row, enum truth_kind kind, const struct truth_view *v),
		void *arg)
{
	list_for_each (it, truth_rows(a->truth)) {
		const struct truth_row *row = container_of(it, struct truth_row, link);

		for (unsigned k = 0; k < TRUTH_KINDS && row->pod == p->id; k++) {
			struct truth_view v;

			truth_look(row, (enum truth_kind)k, &v);
			if (v.compared)
				each(arg, row, (enum truth_kind)k, &v);
		}
	}
}
