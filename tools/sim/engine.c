/* SPDX-License-Identifier: Apache-2.0
 *
 * A sequence's way: waiting → (blocks found and taken) running → finished. While it runs, each step takes the tokens
 * that have no KV yet: at first the prompt behind the hit, in chunks; then always the one token made last. When all
 * known tokens have KV, the step's end makes the next one.
 *
 * Blocks for a whole prompt are taken at admission, so that two prompts cannot wait for each other. While decoding, a
 * sequence that finds no free block pushes the one admitted last back into the queue (preemption), possibly itself.
 */
#include "engine.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double le_ttft[] = { .001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
				  1,	2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560 };
static const double le_itl[] = { .01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80 };
static const double le_e2e[] = { .3, .5, .8, 1,	 1.5, 2,   2.5, 5,   10,   15,	20,
				 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680 };
static const double le_len[] = { 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000 };
static const double le_iter[] = { 1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384 };

#define PHIST(bounds) ((struct phist){ .le = bounds, .n = sizeof(bounds) / sizeof(bounds[0]) })

int engine_init(struct engine *e, const struct engine_limits *lim, const struct engine_cost *cost,
		const struct engine_ops *ops, uint32_t nblocks, bool prefix_caching, struct str hash_seed,
		uint64_t rng_seed, struct kv_sink *sink)
{
	*e = (struct engine){ .lim = *lim, .cost = *cost, .ops = ops, .rng = { rng_seed } };
	list_init(&e->waiting);
	list_init(&e->running);
	blockhash_none(hash_seed, &e->none);
	e->stats.ttft = PHIST(le_ttft);
	e->stats.itl = e->stats.tpot = PHIST(le_itl);
	e->stats.e2e = e->stats.queue = e->stats.inference = e->stats.prefill = e->stats.decode = PHIST(le_e2e);
	e->stats.prompt = e->stats.generation = PHIST(le_len);
	e->stats.iteration = PHIST(le_iter);
	return cache_init(&e->cache, nblocks, prefix_caching, sink);
}

int engine_add_host(struct engine *e, uint32_t nblocks)
{
	int r = cache_init(&e->host, nblocks, e->cache.hits, e->cache.sink);

	e->host.is_below = true;
	if (!r)
		e->cache.below = &e->host;
	return r;
}

void engine_free(struct engine *e)
{
	cache_free(&e->host);
	cache_free(&e->cache);
}

int seq_init(struct seq *s, const uint32_t *prompt, uint32_t n)
{
	*s = (struct seq){ .nprompt = n, .ntokens = n, .cap = n + 32 };
	list_init(&s->link);
	s->tokens = malloc(s->cap * sizeof(*s->tokens));
	if (!s->tokens)
		return -ENOMEM;
	memcpy(s->tokens, prompt, n * sizeof(*prompt));
	return 0;
}

void seq_free(struct seq *s)
{
	free(s->tokens);
	free(s->digests);
	free(s->blocks);
	*s = (struct seq){ 0 };
}

int seq_push(struct seq *s, uint32_t token)
{
	if (s->ntokens == s->cap) {
		uint32_t cap = s->cap + s->cap / 4 + 256;
		uint32_t *v = realloc(s->tokens, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		s->tokens = v;
		s->cap = cap;
	}
	s->tokens[s->ntokens++] = token;
	return 0;
}

/* Digests of the first <n> blocks, all of them full. */
static int seq_digests(struct engine *e, struct seq *s, uint32_t n)
{
	struct blockhash_extra x = { .tagged = !e->lim.untagged_keys, .lora = s->lora, .lora_path = s->lora_path };
	uint32_t bs = e->lim.block_size;
	struct digest *v;

	if (n <= s->ndigests || !e->cache.hits)
		return 0;
	v = realloc(s->digests, (n + 8) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->digests = v;
	for (; s->ndigests < n; s->ndigests++) {
		uint32_t i = s->ndigests;

		x.salt = i ? (struct str){ 0 } : s->salt;
		blockhash(i ? &v[i - 1] : &e->none, s->tokens + (size_t)i * bs, bs, &x, &v[i]);
	}
	return 0;
}

static int seq_room(struct seq *s, uint32_t nblocks)
{
	uint32_t *v;

	if (nblocks <= s->cap_blocks)
		return 0;
	v = realloc(s->blocks, (nblocks + 8) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	s->blocks = v;
	s->cap_blocks = nblocks + 8;
	return 0;
}

int engine_submit(struct engine *e, struct seq *s, uint64_t now)
{
	int r;

	if (e->nwaiting >= e->lim.max_waiting) {
		e->stats.rejected++;
		return -EBUSY;
	}
	r = seq_digests(e, s, s->nprompt / e->lim.block_size);
	if (r)
		return r;
	s->t_arrive = now;
	s->waiting = true;
	list_add_tail(&e->waiting, &s->link);
	e->nwaiting++;
	return 0;
}

static void leave(struct engine *e, struct seq *s)
{
	list_del(&s->link);
	if (s->waiting)
		e->nwaiting--;
	if (s->running)
		e->nrunning--;
	s->waiting = s->running = false;
	cache_release(&e->cache, s->blocks, s->nblocks);
	s->nblocks = 0;
}

void engine_abort(struct engine *e, struct seq *s, uint64_t now)
{
	if (!s->waiting && !s->running)
		return;
	leave(e, s);
	e->stats.finished[FINISH_ABORT]++;
}

uint32_t engine_lora_running(const struct engine *e, struct str lora)
{
	uint32_t n = 0;

	list_for_each (it, &e->running)
		n += str_eq(container_of(it, struct seq, link)->lora, lora);
	return n;
}

uint32_t engine_lora_waiting(const struct engine *e, struct str lora)
{
	uint32_t n = 0;

	list_for_each (it, &e->waiting)
		n += str_eq(container_of(it, struct seq, link)->lora, lora);
	return n;
}

static bool lora_fits(const struct engine *e, struct str lora)
{
	uint32_t others = 0;

	if (!lora.p || engine_lora_running(e, lora))
		return true;
	list_for_each (it, &e->running) {
		const struct seq *s = container_of(it, struct seq, link);
		bool first = s->lora.p;

		for (const struct list *p = it->prev; first && p != &e->running; p = p->prev)
			first = !str_eq(container_of(p, struct seq, link)->lora, s->lora);
		others += first;
	}
	return others < e->lim.max_loras;
}

/* Make the blocks up to token <upto> findable and tell of them. */
static void store(struct engine *e, struct seq *s, uint32_t upto)
{
	uint32_t bs = e->lim.block_size, full = upto / bs, from = s->stored;
	struct kv_stored ev;

	if (full <= from || !e->cache.hits || seq_digests(e, s, full))
		return;
	for (uint32_t i = from; i < full; i++)
		cache_fill(&e->cache, s->blocks[i], &s->digests[i]);
	s->stored = full;
	ev = (struct kv_stored){ .hashes = s->digests + from,
				 .n = full - from,
				 .parent = from ? &s->digests[from - 1] : NULL,
				 .tokens = s->tokens + (size_t)from * bs,
				 .lora = s->lora };
	if (!from)
		ev.salt = s->salt;
	e->cache.sink->stored(e->cache.sink, &ev);
}

/* A step's mean with Gaussian noise, within ±70 % as llm-d's simulator has it. */
static double noisy(struct engine *e, double mean, double std)
{
	double u, v, x;

	if (std <= 0 || mean <= 0)
		return mean;
	u = 1 - rng_unit(&e->rng);
	v = rng_unit(&e->rng);
	x = mean + std * sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
	return x < 0.3 * mean ? 0.3 * mean : x > 1.7 * mean ? 1.7 * mean : x;
}

static void preempt(struct engine *e, struct seq *s)
{
	leave(e, s);
	s->computed = s->stored = s->chunk = 0;
	s->ready_at = 0;
	s->waiting = true;
	list_add(&e->waiting, &s->link);
	e->nwaiting++;
	e->stats.preemptions++;
}

/* Blocks for the tokens of this step; false: <s> itself had to go. */
static bool grow(struct engine *e, struct seq *s, uint32_t ntokens)
{
	uint32_t need = (ntokens + e->lim.block_size - 1) / e->lim.block_size;

	if (seq_room(s, need)) {
		preempt(e, s);
		return false;
	}
	while (s->nblocks < need) {
		while (!e->cache.nfree) {
			struct seq *last = container_of(e->running.prev, struct seq, link);

			preempt(e, last);
			if (last == s)
				return false;
		}
		s->blocks[s->nblocks++] = cache_take_new(&e->cache);
	}
	return true;
}

/* Find and take the blocks of a waiting sequence; false: they do not fit now. */
static bool admit(struct engine *e, struct seq *s, uint64_t now)
{
	uint32_t bs = e->lim.block_size, need = (s->ntokens + bs - 1) / bs, hits, loaded, idle;

	if (seq_digests(e, s, s->ntokens / bs) || seq_room(s, need))
		return false;
	/* The last token is always computed: its output is what is asked for. */
	hits = cache_hits(&e->cache, s->digests, (s->ntokens - 1) / bs, s->blocks, &idle);
	if (e->cache.nfree < need - hits + idle)
		return false;
	for (uint32_t i = 0; i < hits; i++)
		cache_take_hit(&e->cache, s->blocks[i]);
	loaded = cache_hits_below(&e->cache, s->digests + hits, (s->ntokens - 1) / bs - hits, s->blocks + hits);
	for (uint32_t i = hits; i < need; i++)
		s->blocks[i] = cache_take_new(&e->cache);
	s->nblocks = need;
	s->stored = hits;
	s->computed = (hits + loaded) * bs;
	store(e, s, s->computed);
	list_del(&s->link);
	list_add_tail(&e->running, &s->link);
	s->waiting = false;
	s->running = true;
	e->nwaiting--;
	e->nrunning++;
	if (!s->t_sched) {
		s->t_sched = now;
		s->cached = s->computed;
		e->stats.queries += s->ntokens;
		e->stats.hits += s->cached;
		e->stats.prompt_tokens += s->ntokens;
		if (s->remote)
			e->stats.remote_tokens += s->ntokens - s->cached;
		else
			e->stats.computed_tokens += s->ntokens - s->cached;
	}
	return true;
}

struct step {
	uint32_t budget, decodes, chunks, tokens;
	double compute;
	uint64_t earliest; /* of those that wait for their first token; 0: none */
};

static void note_ready(struct step *st, uint64_t at)
{
	if (!st->earliest || at < st->earliest)
		st->earliest = at;
}

/* The next tokens of <s>, as many as the budget lets through. */
static void take_chunk(struct engine *e, struct seq *s, struct step *st)
{
	uint32_t n = s->ntokens - s->computed;

	if (n > st->budget)
		n = st->budget;
	s->chunk = n;
	if (!n)
		return;
	st->budget -= st->budget == UINT32_MAX ? 0 : n;
	st->tokens += n;
	if (n == 1 && s->t_first) {
		st->decodes++;
	} else {
		st->chunks++;
		st->compute += n * e->cost.per_token;
	}
	store(e, s, s->computed + n);
}

static void start_seq(struct engine *e, struct seq *s, struct step *st, uint64_t now)
{
	double wait = 0;

	if (s->remote && !s->t_first)
		wait = e->cost.transfer + (s->ntokens - s->computed) * e->cost.transfer_per_token;
	else if (e->cost.ttft > 0 && !s->t_first)
		wait = noisy(e, e->cost.ttft, e->cost.ttft_std);
	if (wait > 0) {
		if (!s->remote)
			store(e, s, s->ntokens);
		s->ready_at = now + (uint64_t)wait;
		note_ready(st, s->ready_at);
		return;
	}
	st->compute += s->remote ? 0 : e->cost.overhead;
	take_chunk(e, s, st);
}

uint64_t engine_begin(struct engine *e, uint64_t now)
{
	struct step st = { .budget = e->cost.per_token > 0 ? e->lim.max_batched_tokens : UINT32_MAX };
	uint64_t preempted = e->stats.preemptions;
	double load = 1, len;

	if (e->asleep)
		return ENGINE_IDLE;
	/* A sequence's growth may preempt those behind it: read the link after it has grown. */
	for (struct list *it = e->running.next, *next; it != &e->running; it = next) {
		struct seq *s = container_of(it, struct seq, link);

		next = it->next;
		s->chunk = 0;
		if (s->ready_at) {
			note_ready(&st, s->ready_at);
			continue;
		}
		if (!grow(e, s, s->ntokens))
			break; /* it was the last */
		next = it->next;
		take_chunk(e, s, &st);
	}
	for (struct list *it = e->waiting.next, *next; it != &e->waiting && st.budget; it = next) {
		struct seq *s = container_of(it, struct seq, link);

		next = it->next;
		if (e->nrunning >= e->lim.max_num_seqs || e->stats.preemptions != preempted)
			break;
		if (!lora_fits(e, s->lora))
			continue;
		if (!admit(e, s, now))
			break;
		start_seq(e, s, &st, now);
	}
	if (list_empty(&e->running))
		return ENGINE_IDLE; /* an idle engine tells nothing, not even that its cache was reset */
	e->ops->step(e);
	e->in_step = true;
	if (st.tokens)
		phist_add(&e->stats.iteration, st.tokens);
	if (e->lim.max_num_seqs > 1 && e->cost.load_factor > 1)
		load += (e->cost.load_factor - 1) * (e->nrunning - 1) / (e->lim.max_num_seqs - 1);
	len = st.compute * load;
	if (st.decodes)
		len += noisy(e, e->cost.itl, e->cost.itl_std) * load;
	e->only_waits = !st.decodes && !st.chunks;
	if (e->only_waits)
		return st.earliest > now ? st.earliest - now : 0;
	return (uint64_t)len;
}

static double seconds(uint64_t from, uint64_t to)
{
	return (double)(to - from) * 1e-9;
}

static void note_token(struct engine *e, struct seq *s, uint64_t now)
{
	e->stats.generated_tokens++;
	if (!s->t_first) {
		s->t_first = now;
		phist_add(&e->stats.ttft, seconds(s->t_arrive, now));
	} else {
		phist_add(&e->stats.itl, seconds(s->t_last, now));
	}
	s->t_last = now;
}

static void note_finish(struct engine *e, struct seq *s, enum finish why, uint64_t now)
{
	struct engine_stats *st = &e->stats;
	uint32_t made = s->ntokens - s->nprompt;

	st->finished[why]++;
	phist_add(&st->e2e, seconds(s->t_arrive, now));
	phist_add(&st->queue, seconds(s->t_arrive, s->t_sched));
	phist_add(&st->inference, seconds(s->t_sched, now));
	phist_add(&st->prefill, seconds(s->t_sched, s->t_first));
	phist_add(&st->decode, seconds(s->t_first, now));
	phist_add(&st->prompt, s->nprompt);
	phist_add(&st->generation, made);
	if (made > 1)
		phist_add(&st->tpot, seconds(s->t_first, now) / (made - 1));
}

void engine_end(struct engine *e, uint64_t now)
{
	e->in_step = false;
	list_for_each_safe (it, next, &e->running) {
		struct seq *s = container_of(it, struct seq, link);
		enum finish why;

		if (s->ready_at) {
			if (s->ready_at > now)
				continue;
			s->ready_at = 0;
			if (s->remote) { /* told when it has come, before the first token */
				store(e, s, s->ntokens);
				e->ops->step(e);
			}
			s->computed = s->ntokens;
		} else {
			if (!s->chunk)
				continue;
			s->computed += s->chunk;
			s->chunk = 0;
			if (s->computed < s->ntokens)
				continue;
		}
		note_token(e, s, now);
		why = e->ops->token(e, s);
		if (why == FINISH_NONE)
			continue;
		leave(e, s);
		note_finish(e, s, why, now);
		e->ops->done(e, s, why);
	}
}
