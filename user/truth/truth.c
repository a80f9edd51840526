/* SPDX-License-Identifier: Apache-2.0 */
#include "truth/truth.h"

#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "base/str.h"
#include "truth/truth_int.h"

#define BUCKETS 256
#define KEEP	0.9 /* of the sums, from one look with answers to the next */

struct truth {
	struct list rows, bucket[BUCKETS];
	unsigned n;
};

static struct list *bucket_of(struct truth *t, uint32_t pod, uint64_t model)
{
	return &t->bucket[mix64(model + pod) % BUCKETS];
}

struct truth *truth_new(void)
{
	struct truth *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	list_init(&t->rows);
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&t->bucket[i]);
	return t;
}

static void row_free(struct truth *t, struct truth_row *row)
{
	list_del(&row->link);
	list_del(&row->hash);
	free(row);
	t->n--;
}

void truth_free(struct truth *t)
{
	if (!t)
		return;
	list_for_each_safe (it, tmp, &t->rows)
		row_free(t, container_of(it, struct truth_row, link));
	free(t);
}

struct list *truth_rows(struct truth *t)
{
	return &t->rows;
}

struct truth_row *truth_find(struct truth *t, uint32_t pod, uint64_t model)
{
	list_for_each (it, bucket_of(t, pod, model)) {
		struct truth_row *row = container_of(it, struct truth_row, hash);

		if (row->pod == pod && row->model == model)
			return row;
	}
	return NULL;
}

static void make_room(struct truth *t)
{
	struct truth_row *oldest = NULL;

	if (t->n < TRUTH_ROWS_MAX)
		return;
	list_for_each (it, &t->rows) {
		struct truth_row *row = container_of(it, struct truth_row, link);

		if (!oldest || row->fed_ns < oldest->fed_ns)
			oldest = row;
	}
	row_free(t, oldest);
}

struct truth_row *truth_add(struct truth *t, uint32_t pod, uint64_t model, const char *name)
{
	struct truth_row *row = calloc(1, sizeof(*row));

	if (!row)
		return NULL;
	make_room(t);
	row->pod = pod;
	row->model = model;
	row->block = 1;
	str_copy(row->name, sizeof(row->name), name);
	for (unsigned k = 0; k < TRUTH_KINDS; k++)
		row->w[k].scale = 1;
	list_add_tail(&t->rows, &row->link);
	list_add_tail(bucket_of(t, pod, model), &row->hash);
	t->n++;
	return row;
}

void truth_forget(struct truth *t, uint32_t pod)
{
	list_for_each_safe (it, tmp, &t->rows) {
		struct truth_row *row = container_of(it, struct truth_row, link);

		if (row->pod == pod)
			row_free(t, row);
	}
}

void truth_feed(struct truth_row *row, const struct truth_sample *s, uint64_t now_ns)
{
	struct truth_window *w = &row->w[s->kind < TRUTH_KINDS ? s->kind : TRUTH_COMPLETIONS];

	row->fed_ns = now_ns;
	row->block = s->block;
	if (s->prompt > s->reported) { /* the last token is computed anew in any case */
		uint64_t whole = (s->prompt - s->reported - 1) / s->block;

		row->computed_new += (double)whole;
	}
	if (s->predicted < s->block && s->reported < s->block)
		return;
	w->v[w->n % TRUTH_WINDOW].predicted = s->predicted;
	w->v[w->n % TRUTH_WINDOW].reported = s->reported;
	/* A count of how many there were, of which only "at least a window" matters once it wraps. */
	w->n = w->n + 1 ? w->n + 1 : TRUTH_WINDOW;
	w->compared++;
	w->fed = true;
}

static bool is_near(double x, double mean)
{
	return x >= mean * 0.9 && x <= mean * 1.1;
}

void pattern_of(const struct truth_window *w, uint32_t block, uint32_t last, struct pattern *ret)
{
	uint32_t have = w->n < TRUTH_WINDOW ? w->n : TRUTH_WINDOW, n = last < have ? last : have;
	struct pattern p = { .n = n };
	double mean = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t pre = w->v[(w->n - 1 - i) % TRUTH_WINDOW].predicted;
		uint64_t rep = w->v[(w->n - 1 - i) % TRUTH_WINDOW].reported;

		p.predicted += pre;
		p.reported += rep;
		p.both += pre < rep ? pre : rep;
		if (pre > rep + block) {
			p.over++;
			p.zero += rep == 0;
		} else if (rep > pre + block) {
			p.under++;
			p.miss += pre == 0;
		} else {
			p.hits += pre > block;
			continue;
		}
		mean += pre ? (double)rep / (double)pre : 0;
	}
	if (p.over + p.under)
		mean /= p.over + p.under;
	for (uint32_t i = 0; i < n && mean > 0; i++) {
		uint64_t pre = w->v[(w->n - 1 - i) % TRUTH_WINDOW].predicted;
		uint64_t rep = w->v[(w->n - 1 - i) % TRUTH_WINDOW].reported;

		if ((pre > rep + block || rep > pre + block) && pre && is_near((double)rep / (double)pre, mean))
			p.alike++;
	}
	*ret = p;
}

static float scale_of(const struct pattern *p)
{
	return p->predicted ? (float)((double)p->both / (double)p->predicted) : 1;
}

static void find_cause(const struct truth_row *row, struct truth_window *w, enum truth_kind kind,
		       const struct truth_rule *rule, const struct truth_facts *facts)
{
	struct pattern p;

	pattern_of(w, row->block, TRUTH_WINDOW, &p);
	w->cause = cause_of(row, kind, rule, facts);
	w->fell.n = p.n;
	w->fell.off = p.over + p.under;
	w->fell.predicted = p.predicted;
	w->fell.reported = p.reported;
}

static enum truth_verdict judge(const struct truth_row *row, struct truth_window *w, enum truth_kind kind,
				const struct truth_rule *rule, const struct truth_facts *facts)
{
	enum truth_cause was = w->cause;
	float scale = w->scale;
	struct pattern p;
	uint32_t off;

	if (!w->fed)
		return TRUTH_SAME;
	w->fed = false;
	pattern_of(w, row->block, w->doubted ? rule->samples : TRUTH_WINDOW, &p);
	off = p.over + p.under;
	if (!w->doubted) {
		if (p.n < rule->samples || off <= rule->drift * p.n)
			return TRUTH_SAME;
		find_cause(row, w, kind, rule, facts);
		w->scale = scale_of(&p);
		w->doubted = true;
		w->n = 0;
		return TRUTH_FELL;
	}
	if (p.n >= rule->samples && off <= rule->drift * p.n / 2) {
		w->doubted = false;
		w->cause = TRUTH_FINE;
		w->scale = 1;
		w->n = 0;
		return TRUTH_ROSE;
	}
	if (p.n >= rule->samples)
		find_cause(row, w, kind, rule, facts);
	if (p.n >= rule->samples / 2)
		w->scale = scale_of(&p);
	return w->cause != was ? TRUTH_OTHER_CAUSE : w->scale != scale ? TRUTH_OTHER_SCALE : TRUTH_SAME;
}

enum truth_verdict truth_judge(struct truth_row *row, enum truth_kind kind, const struct truth_rule *rule,
			       const struct truth_facts *facts)
{
	return judge(row, &row->w[kind], kind, rule, facts);
}

void truth_told(struct truth_row *row, uint64_t told)
{
	if (row->computed_new > 0) {
		row->computed_sum = row->computed_sum * KEEP + row->computed_new;
		row->told_sum = row->told_sum * KEEP;
	}
	row->told_sum += (double)(told - row->told);
	row->computed_new = 0;
	row->told = told;
}

void truth_look(const struct truth_row *row, enum truth_kind kind, struct truth_view *ret)
{
	const struct truth_window *w = &row->w[kind];
	struct pattern p;

	pattern_of(w, row->block, TRUTH_WINDOW, &p);
	*ret = (struct truth_view){ .n = p.n,
				    .off = p.over + p.under,
				    .predicted = p.predicted,
				    .reported = p.reported,
				    .compared = w->compared,
				    .doubted = w->doubted,
				    .cause = w->cause,
				    .scale = w->scale };
}
