/* SPDX-License-Identifier: Apache-2.0
 *
 * Which pods may serve the request, how much of its prompt each holds, which one the policy takes. Everything shared is
 * read inside one qsbr section: the snapshot, the index. What leaves it is referenced.
 *
 * A long body need not be whole. A prefix's match is final as soon as the text goes on beyond it: when at most one
 * pod's match reaches to where the text stands, only that one can still grow, and growing makes it a better choice. If
 * it is the choice already, or if none is left, the rest of the body cannot change the pod (decide_early), and goes on
 * to it as it arrives; what was matched is looked up again when all of it is there (decide_rest).
 *
 * The ladder (never worse than no gateway): exact text and live events → precise; a text that is only our own form of
 * the messages, or pods without events → approximate; no text but a session → session; nothing → load alone.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/proxy_int.h"

#define OPEN_MARGIN \
	8192 /* bytes before the text's end: farther than two multiples at which guesses and blocks are found */
#define BLOCK_ASSUMED 16	      /* tokens, while neither metrics nor events have told */
#define LATE_PAUSE    (60 * NS_PER_S) /* no early decisions, once a client has named its model behind the prompt */

#define NO_HIT UINT16_MAX

struct deciding {
	struct request *r;
	struct worker *w;
	struct inspection *in;
	const struct snapshot *s;
	const struct route *route;
	struct sched_in terms;
	uint64_t ns;
	unsigned nrows, nhits;
	struct pod *pods[SCHED_ROWS_MAX]; /* of the rows; valid inside the section */
	uint32_t bytes[SCHED_ROWS_MAX];	  /* matched */
	uint32_t age[SCHED_ROWS_MAX];	  /* of a match by speculation, in chunks */
	uint16_t hit[SCHED_ROWS_MAX];	  /* in w->hits; NO_HIT: none */
	uint64_t best_bytes;		  /* of the deepest exact match */
	uint32_t best_tokens;
	bool live, early;
};

static int refuse(struct refusal *no, enum stats_id why, int status, const char *type, const char *fmt, const char *arg)
{
	no->why = why;
	no->type = type;
	snprintf(no->message, sizeof(no->message), fmt, arg);
	return status;
}

static int find_route(struct deciding *d, uint64_t mask[4], unsigned *ret_pool, struct refusal *no)
{
	const char *model = d->in->model;

	if (model[0]) {
		d->route = snapshot_route(d->s, str_of(model));
		if (d->route) {
			memcpy(mask, d->route->pods_mask, sizeof(d->route->pods_mask));
			*ret_pool = d->route->pool;
			return 0;
		}
		if (d->s->nlisted || d->s->nroutes)
			return refuse(
				no, STATS_REFUSED_MODEL, 404, "NotFoundError",
				"The model `%s` does not exist: no pod serves it. GET /v1/models lists what there is.",
				model);
	}
	snapshot_any(d->s, UINT32_MAX, mask);
	for (unsigned i = 0; i < d->s->npods; i++)
		if (mask[i / 64] >> i % 64 & 1) {
			*ret_pool = d->s->pods[i]->pool;
			return 0;
		}
	return refuse(no, STATS_REFUSED_NO_POD, 503, "overloaded_error", "No pod is known%s.", "");
}

/* Pods that may take it. When there is none, those that asked for a pause; when there is none of these either, those
 * that were ejected for failing: an answer from a pod that may be sick is better than none from a gateway that is well.
 */
static bool may_take(const struct pod *p, int pass, uint64_t now)
{
	if (pod_role(p) == ROLE_PREFILL || pod_weight(p) == 0)
		return false;
	return pass == 0   ? pod_usable(p, now)
	       : pass == 1 ? pod_last_resort(p, now)
			   : !(pod_down_now(p, now) & ~(uint32_t)(POD_DOWN_BACKOFF | POD_DOWN_EJECTED));
}

static void candidates(struct deciding *d, const uint64_t mask[4], uint64_t now)
{
	for (int pass = 0; pass < 3 && d->nrows == 0; pass++) {
		for (unsigned i = 0; i < d->s->npods && d->nrows < SCHED_ROWS_MAX; i++) {
			struct pod *p = d->s->pods[i];
			struct sched_row *row = &d->w->rows[d->nrows];
			struct ledger_view v;

			if (!(mask[i / 64] >> i % 64 & 1) || !may_take(p, pass, now))
				continue;
			ledger_read(p, now, &v);
			*row = (struct sched_row){
				.pod = (uint16_t)i,
				.key = p->key,
				.role = (uint8_t)pod_role(p),
				.weight = (uint8_t)pod_weight(p),
				.n = v.n,
				.waiting = v.waiting,
				.backlog = v.backlog,
				.s = v.s,
				.t = v.t,
				.kv_usage = (float)d->s->samples[i].kv_usage,
				.engine_running = (float)d->s->samples[i].running,
				.engine_waiting = (float)d->s->samples[i].waiting,
				.ttft = (float)d->s->paces[i].ttft,
				.gap = (float)d->s->paces[i].gap,
			};
			d->w->row_blocks[d->nrows] = 0;
			d->w->checks[d->nrows] = (struct check){ .why_not = STATS_CHECK_TEXT };
			d->bytes[d->nrows] = d->age[d->nrows] = 0;
			d->hit[d->nrows] = NO_HIT;
			d->pods[d->nrows++] = p;
		}
	}
}

/* An estimate of tokens in whole blocks, as an engine reports them. (What is known to its end is a chunk short of it.)
 */
static uint32_t whole_blocks(const struct deciding *d, unsigned row, uint32_t tokens)
{
	uint32_t block = d->s->samples[d->w->rows[row].pod].block_size;

	return block ? tokens / block * block : tokens;
}

static void scale_row(struct deciding *d, unsigned i, double by)
{
	struct sched_row *row = &d->w->rows[i];

	row->matched = (uint32_t)(row->matched * by);
	row->in_cpu = (uint32_t)(row->in_cpu * by);
	row->in_disk = (uint32_t)(row->in_disk * by);
	d->w->row_blocks[i] = (uint32_t)(d->w->row_blocks[i] * by);
}

/* What a pod's events tell of a model counts for what it was worth lately. */
static void doubt(struct deciding *d)
{
	unsigned kind = api_is_chat(d->in->kind) ? TRUTH_CHATS : TRUTH_COMPLETIONS;
	const char *base = d->route ? d->route->base : d->in->model;
	uint64_t model = d->s->ndoubts ? truth_model(base) : 0;

	for (unsigned k = 0; k < d->s->ndoubts; k++) {
		const struct doubt *of = &d->s->doubts[k];

		if (of->is.model != model || !(of->is.kinds >> kind & 1))
			continue;
		for (unsigned i = 0; i < d->nrows; i++)
			if (d->w->rows[i].pod == of->pod) {
				d->w->checks[i].doubted = true;
				d->w->checks[i].scale = of->is.scale[kind];
				scale_row(d, i, (double)of->is.scale[kind]);
			}
	}
}

/* May the answer be compared with what is known now? Else the counter that says why not. */
static enum stats_id why_unchecked(const struct deciding *d, const struct pod *p)
{
	if (!d->in->exact)
		return STATS_CHECK_TEXT;
	if (d->in->several)
		return STATS_CHECK_REQUEST;
	if (p->spec.ranks > 1 || pod_role(p) != ROLE_BOTH)
		return STATS_CHECK_POD; /* which rank will it be; what came from another pod counts as cached */
	return atomic_load(&p->index_live) ? STATS_N : STATS_CHECK_EVENTS;
}

static void prepare_checks(struct deciding *d)
{
	for (unsigned i = 0; i < d->nrows; i++) {
		uint32_t block = d->s->samples[d->w->rows[i].pod].block_size;
		struct check *k = &d->w->checks[i];

		if (!block)
			block = atomic_load_explicit(&d->pods[i]->event_block, memory_order_relaxed);
		k->block = block ? block : BLOCK_ASSUMED;
		k->why_not = why_unchecked(d, d->pods[i]);
		k->guessed = d->w->rows[i].matched >= k->sure + k->block;
		k->queued = d->w->rows[i].waiting > 0;
	}
	if (d->in->exact)
		doubt(d);
	for (unsigned i = 0; i < d->nrows; i++)
		d->live |= atomic_load(&d->pods[i]->index_live) && !d->w->checks[i].doubted;
}

static void match(struct deciding *d)
{
	struct worker *w = d->w;
	const struct inspection *in = d->in;
	const char *base = d->route ? d->route->base : in->model;
	struct str parts[3] = { str_of(base), str_of(in->salt), STR("chat") };
	const struct index_text *hash = &in->prompt.hash;
	struct str text = buf_str(&in->prompt.text);

	d->ns = index_namespace(w->sh->index, parts, !in->exact ? 3 : in->salt[0] ? 2 : 1);
	d->terms.prefix = hash->n ? hash->at[0] : hash_bytes(text.p, text.n, d->ns);
	d->nhits = index_match(w->sh->index, d->ns, hash, text.p, text.n, w->hits, MATCH_HITS_MAX);
	for (unsigned i = 0; i < d->nrows; i++)
		for (unsigned k = 0; k < d->pods[i]->spec.ranks; k++)
			for (unsigned h = 0; h < d->nhits; h++) {
				const struct index_hit *hit = &w->hits[h];

				if (hit->holder != d->pods[i]->holder[k] || hit->tokens < w->rows[i].matched)
					continue;
				w->rows[i].matched = hit->exact ? hit->tokens : whole_blocks(d, i, hit->tokens);
				w->rows[i].in_cpu = hit->in_tier[TIER_CPU];
				w->rows[i].in_disk = hit->in_tier[TIER_DISK];
				w->row_blocks[i] = hit->blocks;
				d->hit[i] = (uint16_t)h;
				d->bytes[i] = (uint32_t)hit->bytes;
				d->age[i] = hit->age;
				d->w->checks[i].sure = hit->sure;
				if (hit->exact && hit->bytes > d->best_bytes) {
					d->best_bytes = hit->bytes;
					d->best_tokens = hit->tokens;
				}
			}
	prepare_checks(d);
}

/* What the chosen pod's engine will use of it. A block more or less does not change the choice, so others are not
 * looked at. */
static void settle_row(struct deciding *d, unsigned row)
{
	struct index_hit *hit = d->hit[row] == NO_HIT ? NULL : &d->w->hits[d->hit[row]];

	if (!hit || !hit->exact || !d->in->exact || d->in->ids)
		return;
	edge_settle(d->w, d->r->pool, buf_str(&d->in->prompt.text), hit);
	d->w->rows[row].matched = hit->tokens;
	d->w->rows[row].in_cpu = hit->in_tier[TIER_CPU];
	d->w->rows[row].in_disk = hit->in_tier[TIER_DISK];
	d->w->row_blocks[row] = hit->blocks;
	d->bytes[row] = (uint32_t)hit->bytes;
	d->w->checks[row].sure = hit->tokens;
	if (d->w->checks[row].doubted)
		scale_row(d, row, (double)d->w->checks[row].scale);
}

static uint32_t prompt_tokens(const struct deciding *d)
{
	uint32_t q8 = atomic_load_explicit(&d->r->pool->bytes_per_token_q8, memory_order_relaxed);
	uint64_t bytes = d->in->prompt.text.len, n;

	if (d->in->id_count)
		return d->in->id_count;
	if (d->in->opaque)
		bytes = buf_len(&d->r->body);
	else if (d->early)
		bytes = d->r->body_bytes + d->r->body_left;
	n = d->best_tokens + (bytes - (d->best_bytes < bytes ? d->best_bytes : bytes)) * 256 / (q8 ? q8 : 1024);
	for (unsigned i = 0; i < d->nrows; i++)
		if (n <= d->w->rows[i].matched)
			n = d->w->rows[i].matched + 1;
	return n > UINT32_MAX ? UINT32_MAX : n ? (uint32_t)n : 1;
}

/* What the pod will hold, should the request go to it: guess.c tells it to the index's writer. */
static void plan_guess(struct deciding *d, unsigned row, struct leg *leg)
{
	struct worker *w = d->w;
	const struct proxy_pool *pool = d->r->pool;
	const struct pod_sample *s = &d->s->samples[w->rows[row].pod];
	struct pod *p = d->pods[row];
	uint32_t q8 = atomic_load_explicit(&pool->bytes_per_token_q8, memory_order_relaxed);
	uint64_t tokens = (uint64_t)s->num_blocks * s->block_size;
	bool confirmed = d->in->exact && atomic_load(&p->index_live) && !d->w->checks[row].doubted;

	leg->holder = p->holder[0];
	leg->exact = d->in->exact;
	leg->from = d->bytes[row] / INDEX_CHUNK;
	leg->age = d->age[row];
	if (!w->sh->events || leg->holder >= INDEX_HOLDERS || (!confirmed && !pool->cfg->approx_lru))
		leg->holder = NO_HOLDER;
	leg->lru_chunks = (uint32_t)((tokens ? tokens : pool->cfg->kv_tokens) * q8 / 256 / INDEX_CHUNK);
	/* Without events only being said again keeps a prefix in the LRU; often enough is enough. */
	if (!confirmed && leg->age > leg->lru_chunks / 8)
		leg->from = leg->age = 0;
}

/* The text is whole. */
static void may_tell(struct deciding *d)
{
	d->r->told.ns = d->ns;
	d->r->told.chunks = d->in->prompt.hash.n;
}

static float score(const struct deciding *d, unsigned row)
{
	const struct sched_tuning *t = &d->r->pool->tuning;
	const struct sched_row *r = &d->w->rows[row];
	double lost = r->in_cpu * (1 - t->cpu) + r->in_disk * (1 - t->disk);

	return (float)(d->w->row_blocks[row] * (r->matched > lost ? 1 - lost / r->matched : 1));
}

/* The best rows into the explain record, by selection: there are few. */
static void explain(struct deciding *d)
{
	unsigned want = d->nrows < DECISION_CANDIDATES ? d->nrows : DECISION_CANDIDATES;
	struct decision *rec = realloc(d->r->d, sizeof(*rec) + want * sizeof(rec->rows[0]));
	bool taken[SCHED_ROWS_MAX] = { false };

	if (!rec)
		return;
	d->r->d = rec;
	rec->npods = d->nrows;
	while (rec->nrows < want) {
		struct decision_row *out = &rec->rows[rec->nrows++];
		const struct sched_row *row;
		unsigned best = d->nrows;

		for (unsigned i = 0; i < d->nrows; i++)
			if (!taken[i] && (best == d->nrows || d->w->rows[i].cost < d->w->rows[best].cost))
				best = i;
		taken[best] = true;
		row = &d->w->rows[best];
		memcpy(out->pod, d->pods[best]->name, sizeof(out->pod));
		memcpy(out->ip, d->pods[best]->ip, sizeof(out->ip));
		out->matched = row->matched;
		out->in_cpu = row->in_cpu;
		out->in_disk = row->in_disk;
		out->blocks = d->w->row_blocks[best];
		out->score = score(d, best);
		out->uncached = row->uncached;
		out->inflight = row->n;
		out->waiting = row->waiting;
		out->backlog = (float)row->backlog;
		out->own = (float)row->own;
		out->cost = (float)row->cost;
		out->ttft = row->ttft;
		out->gap = row->gap;
		out->doubted = d->w->checks[best].doubted;
	}
}

static void pick(struct deciding *d, struct sched_out *out)
{
	struct request *r = d->r;
	struct worker *w = d->w;

	ledger_read_pool(d->pods[0], &d->terms.pool_s, &d->terms.pool_t);
	d->terms.session = r->session;
	d->terms.tuning = &r->pool->tuning;
	d->terms.mode = d->in->opaque		  ? (r->session ? SCHED_SESSION : SCHED_LOAD)
			: d->in->exact && d->live ? SCHED_PRECISE
						  : SCHED_APPROXIMATE;
	d->terms.prompt_tokens = prompt_tokens(d);
	r->pool->policy->pick(&d->terms, w->rows, d->nrows, &w->sched[r->pool - w->sh->pools], &w->rng, out);
}

static void commit(struct deciding *d, const struct sched_out *out)
{
	static const enum stats_id counters[] = { STATS_MODE_PRECISE, STATS_MODE_APPROX, STATS_MODE_SESSION,
						  STATS_MODE_LOAD };
	struct request *r = d->r;

	if (out->n && d->terms.mode == SCHED_PRECISE && d->w->checks[out->row[0]].doubted)
		d->terms.mode = SCHED_APPROXIMATE;
	stats_inc(d->w->st, counters[d->terms.mode]);
	if (api_is_chat(r->kind) && !r->pool->chat) {
		stats_inc(d->w->st, STATS_RENDER_NONE);
		atomic_store_explicit(&r->pool->chats_approximate, true, memory_order_relaxed);
	}
	for (unsigned i = 0; i < out->n; i++) {
		const struct sched_row *row = &d->w->rows[out->row[i]];
		struct leg *leg = &r->legs[r->nlegs++];

		settle_row(d, out->row[i]);
		*leg = (struct leg){
			.pod = pod_ref(d->pods[out->row[i]]),
			.own = row->own,
			.work = row->work,
			.uncached = row->uncached,
			.matched = row->matched,
			.check = d->w->checks[out->row[i]],
		};
		if (d->early) /* until all of it is there */
			leg->check.why_not = STATS_CHECK_TEXT;
		plan_guess(d, out->row[i], leg);
	}
	r->d->policy = r->pool->policy->name;
	r->d->mode = d->terms.mode;
	r->d->prompt_tokens = d->terms.prompt_tokens;
	explain(d);
}

/* The text is right for whichever pod gets it, or there is none. */
static void render(struct deciding *d)
{
	uint32_t lacking = 0;

	for (unsigned i = 0; i < d->nrows; i++)
		lacking |= atomic_load_explicit(&d->pods[i]->chat_lacks, memory_order_relaxed);
	if (lacking != CHAT_RULES_UNKNOWN) {
		render_chat(d->w, d->in, d->r->pool, lacking);
		return;
	}
	stats_inc(d->w->st, STATS_RENDER_ENGINE);
	atomic_store_explicit(&d->r->pool->chats_approximate, true, memory_order_relaxed);
}

/* What the text still needs to know about the pool. */
static int settle_text(struct deciding *d)
{
	struct request *r = d->r;
	struct inspection *in = d->in;
	const struct vocab *v = r->pool->vocab;

	int e;

	if (in->ids) {
		e = v ? inspection_read_ids(in, v) : -ENOENT;
		r->text_bytes = in->prompt.text.len;
		return e;
	}
	if (api_is_chat(in->kind) && r->pool->chat)
		render(d);
	if (in->unread && !in->exact) {
		e = inspection_gather(in);
		if (e || in->lone)
			return e ? e : -EILSEQ;
	}
	r->text_bytes = in->exact ? in->prompt.text.len - in->prompt.prefix : 0;
	e = prompt_set_prefix(d->w, &in->prompt,
			      v && in->exact && in->special ? vocab_prefix(v) : (struct str){ NULL, 0 });
	return e || !v || !in->exact ? e : prompt_rewrite(d->w, &in->prompt, v);
}

static int decide_inside(struct deciding *d, struct refusal *no)
{
	struct request *r = d->r;
	struct worker *w = d->w;
	struct inspection *in = d->in;
	struct sched_out out = { 0 };
	uint64_t mask[4] = { 0 };
	unsigned pool;
	int status;

	d->s = endpoints_snapshot(w->sh->endpoints);
	str_copy(r->d->model, sizeof(r->d->model), in->model);
	if (d->s->npods == 0)
		return refuse(no, STATS_REFUSED_NO_POD, 503, "overloaded_error", "No pod is known%s.", "");
	status = find_route(d, mask, &pool, no);
	if (status)
		return status;
	r->pool = &w->sh->pools[pool];
	str_copy(r->d->base, sizeof(r->d->base), d->route ? d->route->base : in->model);
	if (r->data_bytes + r->body_left > r->pool->cfg->body)
		return refuse(no, STATS_REFUSED_BODY, 413, "invalid_request_error",
			      "The request's body is larger than limits.body of pool %s allows.", r->pool->cfg->name);
	if (atomic_load_explicit(&r->pool->queued, memory_order_relaxed) >= r->pool->cfg->queue)
		return refuse(no, STATS_REFUSED_QUEUE, 429, "overloaded_error",
			      "Pool %s has as many requests waiting for a connection to a pod as limits.queue allows.",
			      r->pool->cfg->name);
	candidates(d, mask, loop_now(w->loop));
	if (d->nrows == 0)
		return refuse(no, STATS_REFUSED_NO_POD, 503, "overloaded_error",
			      "No pod of pool %s is up. `kvsteer pod list` on the gateway says why.",
			      r->pool->cfg->name);
	if (!in->opaque && settle_text(d)) {
		in->opaque = true;
		in->why = STATS_OPAQUE_KIND;
	}
	if (!in->opaque)
		match(d);
	else
		stats_inc(w->st, in->why);
	pick(d, &out);
	commit(d, &out);
	if (!in->opaque)
		may_tell(d);
	return 0;
}

int decide(struct request *r, struct refusal *no)
{
	struct deciding d = { .r = r, .w = r->c->w, .in = r->in };
	int status;

	qsbr_enter(d.w->sh->qsbr, d.w->id);
	status = decide_inside(&d, no);
	qsbr_leave(d.w->sh->qsbr, d.w->id);
	return status;
}

/* The one row whose match may still grow with the text, -1: none, -2: several. */
static int open_row(const struct deciding *d)
{
	int open = -1;

	for (unsigned i = 0; i < d->nrows; i++)
		if (d->bytes[i] + OPEN_MARGIN >= d->in->prompt.text.len)
			open = open == -1 ? (int)i : -2;
	return open;
}

static bool early_inside(struct deciding *d)
{
	struct request *r = d->r;
	struct worker *w = d->w;
	struct sched_out out = { 0 };
	struct refusal no;
	uint64_t mask[4] = { 0 };
	unsigned pool;
	int open;

	d->s = endpoints_snapshot(w->sh->endpoints);
	if (find_route(d, mask, &pool, &no) || !d->route)
		return false;
	r->pool = &w->sh->pools[pool];
	if (api_is_chat(d->in->kind) && r->pool->chat)
		return false; /* a template may put what comes last at the front */
	if (r->data_bytes + r->body_left > r->pool->cfg->body ||
	    atomic_load_explicit(&r->pool->queued, memory_order_relaxed) >= r->pool->cfg->queue)
		return false;
	candidates(d, mask, loop_now(w->loop));
	if (d->nrows == 0 || settle_text(d))
		return false;
	match(d);
	open = open_row(d);
	if (open == -2)
		return false;
	pick(d, &out);
	if (out.n == 0 || (open >= 0 && out.row[0] != (unsigned)open))
		return false;
	str_copy(r->d->model, sizeof(r->d->model), d->in->model);
	str_copy(r->d->base, sizeof(r->d->base), d->route->base);
	commit(d, &out);
	d->in->early.known = open == -1;
	d->in->early.ns = d->ns;
	d->in->early.bytes = d->bytes[out.row[0]];
	d->in->early.age = d->age[out.row[0]];
	d->in->early.check = d->w->checks[out.row[0]];
	d->in->early.best_bytes = d->best_bytes;
	d->in->early.best_tokens = d->best_tokens;
	return true;
}

bool decide_early(struct request *r)
{
	struct deciding d = { .r = r, .w = r->c->w, .in = r->in, .early = true };
	bool done;

	if (!r->in->model[0] || r->in->ids || loop_now(d.w->loop) < atomic_load(&d.w->sh->no_early_until))
		return false;
	qsbr_enter(d.w->sh->qsbr, d.w->id);
	done = early_inside(&d);
	qsbr_leave(d.w->sh->qsbr, d.w->id);
	if (!done)
		r->pool = NULL;
	return done;
}

static void recall(struct deciding *d)
{
	d->ns = d->in->early.ns;
	d->bytes[0] = d->in->early.bytes;
	d->age[0] = d->in->early.age;
	d->w->checks[0] = d->in->early.check;
	d->w->checks[0].why_not = why_unchecked(d, d->pods[0]);
	d->best_bytes = d->in->early.best_bytes;
	d->best_tokens = d->in->early.best_tokens;
}

static void rest_inside(struct deciding *d)
{
	struct request *r = d->r;
	struct leg *leg = &r->legs[r->leg];
	bool known = d->in->early.known && r->leg == 0;
	unsigned i = 0;

	d->s = endpoints_snapshot(d->w->sh->endpoints);
	while (i < d->s->npods && d->s->pods[i] != leg->pod)
		i++;
	d->route = snapshot_route(d->s, str_of(d->in->model));
	if (i == d->s->npods || !d->route || settle_text(d))
		return; /* it has left meanwhile */
	d->w->rows[0] = (struct sched_row){ .pod = (uint16_t)i, .matched = known ? leg->matched : 0 };
	d->w->checks[0] = (struct check){ .why_not = STATS_CHECK_TEXT };
	d->pods[0] = leg->pod;
	d->hit[0] = NO_HIT;
	d->nrows = 1;
	if (known)
		recall(d);
	else
		match(d);
	settle_row(d, 0);
	r->d->prompt_tokens = prompt_tokens(d);
	r->d->predicted = leg->matched = d->w->rows[0].matched;
	d->w->checks[0].queued = leg->check.queued;
	leg->check = d->w->checks[0];
	for (unsigned k = 0; k < r->d->nrows && !known; k++)
		if (strcmp(r->d->rows[k].pod, leg->pod->name) == 0) {
			r->d->rows[k].matched = leg->matched;
			r->d->rows[k].blocks = d->w->row_blocks[0];
			r->d->rows[k].score = score(d, 0);
		}
	plan_guess(d, 0, leg);
	may_tell(d);
}

void decide_rest(struct request *r)
{
	struct deciding d = { .r = r, .w = r->c->w, .in = r->in };

	if (r->in->late) {
		stats_inc(d.w->st, STATS_EARLY_LATE);
		atomic_store(&d.w->sh->no_early_until, loop_now(d.w->loop) + LATE_PAUSE);
	}
	if (r->in->late || r->in->opaque || r->in->ids)
		return;
	qsbr_enter(d.w->sh->qsbr, d.w->id);
	rest_inside(&d);
	qsbr_leave(d.w->sh->qsbr, d.w->id);
	guess_tell(r);
}

unsigned proxy_lookup(struct proxy_shared *sh, unsigned reader, struct str model, struct str text,
		      struct index_hit *hits, unsigned cap)
{
	uint32_t n = (uint32_t)(text.n / INDEX_CHUNK) + 2;
	uint64_t *at = malloc(n * sizeof(*at));
	struct index_text t;
	const struct route *route;
	struct str base = model;
	unsigned found;

	if (!at)
		return 0;
	qsbr_enter(sh->qsbr, reader);
	route = snapshot_route(endpoints_snapshot(sh->endpoints), model);
	if (route)
		base = str_of(route->base);
	index_text_init(&t, at, n);
	index_text_feed(sh->index, &t, text.p, text.n);
	found = index_match(sh->index, index_namespace(sh->index, &base, 1), &t, text.p, text.n, hits, cap);
	qsbr_leave(sh->qsbr, reader);
	free(at);
	return found;
}
