/* SPDX-License-Identifier: Apache-2.0
 * The index next to a plain one. Build and run: make bench-index
 *
 *   hash      GB/s over 64 KB inputs
 *   put       blocks of 16 tokens (64 bytes) a second, bytes of memory a block, for one holder and for many
 *   full      64 holders with 1,000,000 tokens each that no other has, under the default ceiling of 512 MB; then one
 *             of them saved and loaded into another index
 *   match     400 KB prompts against 64 holders of distinct depths, each look-up right after its prompt was hashed;
 *             alone, and while a writer stores 100,000 blocks a second
 *   plain     the same look-ups by a hash map from each block's chained hash to the holders, block after block, as
 *             token-block indexes do (hashing included); the answers must be equal
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rand.h"
#include "base/time.h"
#include "kvindex/kvindex.h"

#define BLOCK	16
#define BBYTES	64
#define HOLDERS 64
#define PROMPT	(400 * 1024)
#define PROMPTS 16
#define LOOKS	20000
#define PACE	100000 /* blocks a second */

static struct qsbr qsbr;

static void *must(void *p)
{
	if (!p) {
		perror("bench_index");
		exit(1);
	}
	return p;
}

static void fill(char *p, size_t n, uint64_t seed)
{
	struct rng r = { seed };

	for (size_t i = 0; i < n; i++)
		p[i] = (char)(' ' + rng_next(&r) % 90);
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void bench_hash(const struct kvindex *x)
{
	static char text[64 * 1024];
	static uint64_t at[sizeof(text) / INDEX_CHUNK + 1];
	uint64_t best = UINT64_MAX, sum = 0;

	fill(text, sizeof(text), 1);
	for (int i = 0; i < 2000; i++) {
		uint64_t t0 = time_mono(), ns;
		struct index_text t;

		index_text_init(&t, at, sizeof(at) / sizeof(at[0]));
		index_text_feed(x, &t, text, sizeof(text));
		ns = time_mono() - t0;
		sum += ns;
		if (ns < best)
			best = ns;
	}
	printf("hash      64 KB: mean %.2f GB/s, best %.2f GB/s\n", sizeof(text) * 2000.0 / (double)sum,
	       sizeof(text) / (double)best);
}

/* <per_call> blocks an event, chained. */
static void put_chain(struct kvindex *x, unsigned holder, const char *text, unsigned nblocks, unsigned per_call,
		      uint64_t first)
{
	uint64_t hash[512];
	uint32_t ends[512];

	for (unsigned i = 0; i < per_call; i++)
		ends[i] = (i + 1) * BBYTES;
	for (unsigned from = 0; from < nblocks; from += per_call) {
		unsigned n = nblocks - from < per_call ? nblocks - from : per_call;
		int r;

		for (unsigned i = 0; i < n; i++)
			hash[i] = mix64(first + from + i);
		r = index_put(x, holder, 0, from > 0, mix64(first + from - 1), hash, ends, n,
			      text + (size_t)from * BBYTES, BLOCK, TIER_GPU, 0);
		if (r) {
			fprintf(stderr, "bench_index: index_put: %d\n", r);
			exit(1);
		}
	}
}

static void bench_put(unsigned holders, unsigned chains, unsigned nblocks, unsigned per_call)
{
	struct kvindex *x = must(index_new(&qsbr, (size_t)4 << 30, holders));
	char *text = must(malloc((size_t)nblocks * BBYTES));
	uint64_t total = 0, ns = 0;
	struct index_stats empty, st;

	index_stats(x, &empty);
	for (unsigned h = 0; h < holders; h++)
		for (unsigned c = 0; c < chains; c++) {
			uint64_t t0;

			fill(text, (size_t)nblocks * BBYTES, (uint64_t)h << 20 | c);
			t0 = time_mono();
			put_chain(x, h, text, nblocks, per_call, ((uint64_t)h << 20 | c) << 24);
			ns += time_mono() - t0;
			total += nblocks;
			index_tick(x, 1);
		}
	index_tick(x, 1);
	index_stats(x, &st);
	printf("put       %2u holders x %5u chains x %5u blocks, %3u an event: %.2f M blocks/s, %.2f MB (%.0f bytes a "
	       "block)\n",
	       holders, chains, nblocks, per_call, (double)total * 1e3 / (double)ns,
	       (double)(st.bytes - empty.bytes) / 1e6, (double)(st.bytes - empty.bytes) / (double)total);
	free(text);
	index_free(x);
}

#define CEILING ((size_t)512 << 20)

static void bench_save(const struct kvindex *x, double *ret_save, double *ret_load, size_t *ret_bytes)
{
	struct index_secrets s;
	struct kvindex *y;
	struct buf b = { 0 };
	uint64_t t0 = time_mono();

	if (index_save(x, 0, &b))
		exit(1);
	*ret_save = (double)(time_mono() - t0) / 1e6;
	*ret_bytes = buf_len(&b);
	index_secrets_of(x, &s);
	y = must(index_new_with(&qsbr, CEILING, 1, &s));
	t0 = time_mono();
	if (index_load(y, 0, buf_data(&b), buf_len(&b)))
		exit(1);
	*ret_load = (double)(time_mono() - t0) / 1e6;
	index_free(y);
	buf_free(&b);
}

static void bench_full(void)
{
	struct kvindex *x = must(index_new(&qsbr, CEILING, HOLDERS));
	unsigned nblocks = 1000000 / BLOCK;
	char *text = must(malloc((size_t)nblocks * BBYTES));
	uint64_t t0 = time_mono(), ns = 0, blocks = 0, guesses;
	struct index_stats st;
	double save, load;
	size_t bytes;

	for (unsigned h = 0; h < HOLDERS; h++) {
		fill(text, (size_t)nblocks * BBYTES, (uint64_t)h << 20);
		t0 = time_mono();
		put_chain(x, h, text, nblocks, 64, (uint64_t)h << 44);
		ns += time_mono() - t0;
		index_tick(x, 1);
	}
	index_tick(x, 1);
	for (unsigned h = 0; h < HOLDERS; h++) {
		uint64_t n;

		index_holder_stats(x, h, &n, &guesses);
		blocks += n;
	}
	index_stats(x, &st);
	printf("full      %u holders x 1 M tokens: %.1f MB of %.1f, %llu of %u blocks, %llu evicted, %.2f M blocks/s\n",
	       HOLDERS, (double)st.bytes / 1e6, CEILING / 1e6, (unsigned long long)blocks, HOLDERS * nblocks,
	       (unsigned long long)st.evicted, (double)HOLDERS * nblocks * 1e3 / (double)ns);
	bench_save(x, &save, &load, &bytes);
	printf("          one holder saved in %.1f ms (%.2f MB), loaded in %.1f ms\n", save, (double)bytes / 1e6, load);
	free(text);
	index_free(x);
}

/* --- plain --- */

struct plain {
	uint64_t *key, *holders;
	size_t mask;
};

static uint64_t plain_next(uint64_t h, const char *block)
{
	return hash_bytes(block, BBYTES, h);
}

static uint64_t *plain_at(const struct plain *p, uint64_t key)
{
	size_t i = key & p->mask;

	while (p->key[i] && p->key[i] != key)
		i = (i + 1) & p->mask;
	p->key[i] = key;
	return &p->holders[i];
}

static unsigned plain_match(const struct plain *p, const char *text, size_t len, struct index_hit *hit)
{
	uint64_t h = 1, left = UINT64_MAX;
	unsigned n = 0;

	for (size_t at = 0; left; at += BBYTES) {
		uint64_t have = 0;

		if (at + BBYTES < len) { /* the last block is computed anew */
			h = plain_next(h, text + at);
			have = left & *plain_at(p, h);
		}
		for (uint64_t gone = left & ~have; gone; gone &= gone - 1)
			if (at)
				hit[n++] = (struct index_hit){ .holder = (uint16_t)__builtin_ctzll(gone),
							       .bytes = at,
							       .tokens = (uint32_t)(at / BBYTES * BLOCK) };
		left = have;
	}
	return n;
}

/* --- match --- */

struct writer {
	struct kvindex *x;
	atomic_bool stop;
	uint64_t blocks;
};

static void *write_on(void *arg)
{
	static char text[64 * BBYTES];
	struct writer *w = arg;
	uint64_t start = time_mono();
	uint64_t first = UINT64_C(1) << 50;

	while (!atomic_load(&w->stop)) {
		while (w->blocks * NS_PER_S / PACE > time_mono() - start && !atomic_load(&w->stop)) {
			struct timespec ts = { 0, 100000 };

			nanosleep(&ts, NULL);
		}
		fill(text, 128, w->blocks);
		put_chain(w->x, (unsigned)(w->blocks / 64 % HOLDERS), text, 64, 64, first + w->blocks);
		w->blocks += 64;
		if (w->blocks % (64 * 100) == 0)
			index_tick(w->x, time_mono());
	}
	return NULL;
}

static struct index_hit hit_of(const struct index_hit *hits, unsigned n, unsigned holder)
{
	for (unsigned i = 0; i < n; i++)
		if (hits[i].holder == holder)
			return hits[i];
	return (struct index_hit){ .holder = (uint16_t)holder };
}

static void must_equal(unsigned prompt, const struct index_hit *got, unsigned ngot, const struct index_hit *want,
		       unsigned nwant)
{
	for (unsigned h = 0; h < HOLDERS; h++) {
		struct index_hit a = hit_of(got, ngot, h), b = hit_of(want, nwant, h);

		if (a.tokens == b.tokens && a.bytes == b.bytes)
			continue;
		fprintf(stderr, "bench_index: prompt %u, holder %u: %u tokens, %llu bytes; the plain index: %u, %llu\n",
			prompt, h, a.tokens, (unsigned long long)a.bytes, b.tokens, (unsigned long long)b.bytes);
		exit(1);
	}
}

static void show(const char *what, uint32_t *ns, unsigned n)
{
	qsort(ns, n, sizeof(*ns), by_value);
	printf("%-9s p50 %.1f us, p99 %.1f us, p99.9 %.1f us (%u look-ups)\n", what, ns[n / 2] / 1e3,
	       ns[n - n / 100] / 1e3, ns[n - n / 1000 - 1] / 1e3, n);
}

struct prompt {
	char *text;
	struct index_hit want[HOLDERS]; /* the plain index's answer */
	unsigned nwant;
};

/* As a request does it: hash the prompt, then look it up. The prompts take turns. */
static void bench_looks(struct kvindex *x, const struct prompt *prompts, const char *what)
{
	static uint32_t ns[LOOKS], cpu[LOOKS];
	static uint64_t at[PROMPT / INDEX_CHUNK + 1];
	struct index_hit hit[HOLDERS];
	uint64_t hashing = 0;

	for (unsigned i = 0; i < LOOKS; i++) {
		unsigned no = i * 7 % PROMPTS;
		const struct prompt *p = &prompts[no];
		uint64_t c0, t0 = time_mono();
		struct index_text t;
		unsigned n;

		index_text_init(&t, at, sizeof(at) / sizeof(at[0]));
		index_text_feed(x, &t, p->text, PROMPT);
		hashing += time_mono() - t0;
		c0 = time_ns_of(CLOCK_THREAD_CPUTIME_ID);
		t0 = time_mono();
		qsbr_enter(&qsbr, 0);
		n = index_match(x, 0, &t, p->text, PROMPT, hit, HOLDERS);
		qsbr_leave(&qsbr, 0);
		ns[i] = (uint32_t)(time_mono() - t0);
		cpu[i] = (uint32_t)(time_ns_of(CLOCK_THREAD_CPUTIME_ID) - c0);
		if (i % 51 == 0) /* each prompt has its turn */
			must_equal(no, hit, n, p->want, p->nwant);
	}
	show(what, ns, LOOKS);
	show("  cpu", cpu, LOOKS); /* without what else ran on this core in between */
	printf("          and %.1f us to hash each prompt\n", (double)hashing / LOOKS / 1e3);
}

/* Holder h has the first depth(h) blocks of each prompt; depths are spread over all of it. */
static void spread(struct kvindex *x, struct plain *plain, const char *text, unsigned prompt)
{
	unsigned nblocks = PROMPT / BBYTES;

	for (unsigned h = 0; h < HOLDERS; h++) {
		unsigned depth = 1 + (h * 37 + prompt) % HOLDERS * (nblocks - 2) / (HOLDERS - 1);
		uint64_t k = 1;

		put_chain(x, h, text, depth, 64, (UINT64_C(1) << 45) + ((uint64_t)prompt << 32));
		for (unsigned i = 0; i < depth; i++) {
			k = plain_next(k, text + (size_t)i * BBYTES);
			*plain_at(plain, k) |= UINT64_C(1) << h;
		}
	}
}

static void bench_match(void)
{
	struct kvindex *x = must(index_new(&qsbr, (size_t)4 << 30, HOLDERS));
	struct plain plain = { .mask = (1 << 18) - 1 };
	static struct prompt prompts[PROMPTS];
	struct writer w = { .x = x };
	static uint32_t ns[LOOKS / 40];
	pthread_t thread;
	uint64_t t0;

	plain.key = must(calloc(plain.mask + 1, sizeof(*plain.key)));
	plain.holders = must(calloc(plain.mask + 1, sizeof(*plain.holders)));
	for (unsigned i = 0; i < PROMPTS; i++) {
		prompts[i].text = must(malloc(PROMPT));
		fill(prompts[i].text, PROMPT, 99 + i);
		spread(x, &plain, prompts[i].text, i);
	}
	for (unsigned i = 0; i < LOOKS / 40; i++) {
		struct prompt *p = &prompts[i * 7 % PROMPTS];

		t0 = time_mono();
		p->nwant = plain_match(&plain, p->text, PROMPT, p->want);
		ns[i] = (uint32_t)(time_mono() - t0);
	}
	show("plain", ns, LOOKS / 40);
	bench_looks(x, prompts, "match");
	if (pthread_create(&thread, NULL, write_on, &w))
		exit(1);
	t0 = time_mono();
	bench_looks(x, prompts, "+ writer");
	t0 = time_mono() - t0;
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	printf("          meanwhile %.0f k blocks/s were stored\n", (double)w.blocks * 1e6 / (double)t0);
	for (unsigned i = 0; i < PROMPTS; i++)
		free(prompts[i].text);
	free(plain.key);
	free(plain.holders);
	index_free(x);
}

#define GUESSED 300

/* Prompts that are new to their holder, one after the other, the near caches used for something else in between.
 * Without an end each new one drives out an old one; with one they end all at once, at the last tick. */
static void bench_guess(size_t bytes, uint64_t life, const char *what)
{
	struct kvindex *x = must(index_new(&qsbr, (size_t)512 << 20, 3));
	size_t other_n = (size_t)8 << 20;
	uint32_t n = (uint32_t)(bytes / INDEX_CHUNK), ns[GUESSED];
	uint64_t *at = must(malloc(n * sizeof(*at))), *thin = must(malloc(index_places(0, n) * sizeof(*thin)));
	struct index_guess g = {
		.ns = 1, .at = thin, .n = n, .tokens_per_chunk_q8 = 14 * 256, .until_ns = life, .lru_chunks = 28571
	};
	uint64_t t0, end = 0, blocks, guesses;
	volatile char *other = must(malloc(other_n));
	struct rng rng = { bytes };

	for (unsigned h = 0; h < 3; h++)
		index_live(x, h, true, 0);
	for (unsigned i = 0; i < GUESSED; i++) {
		for (uint32_t k = 0; k < n; k++)
			at[k] = rng_next(&rng) >> 3;
		for (size_t k = 0; k < other_n; k += 64)
			other[k]++;
		t0 = time_mono();
		index_thin(at, 0, n, thin);
		g.holder = i % 3;
		if (index_speculate(x, &g))
			exit(1);
		ns[i] = (uint32_t)(time_mono() - t0);
	}
	index_holder_stats(x, 0, &blocks, &guesses);
	if (life) {
		t0 = time_mono();
		index_tick(x, life + 1);
		end = (time_mono() - t0) / GUESSED;
	}
	qsort(ns, GUESSED, sizeof(*ns), by_value);
	printf("guess     %4zu KB, %s: p50 %.1f us a prompt, p90 %.1f us, %.1f us to end it; %llu kept\n", bytes >> 10,
	       what, ns[GUESSED / 2] / 1e3, ns[GUESSED * 9 / 10] / 1e3, (double)end / 1e3, (unsigned long long)guesses);
	free((void *)other);
	free(thin);
	free(at);
	index_free(x);
}

int main(void)
{
	struct kvindex *x;

	qsbr_init(&qsbr, 1);
	x = must(index_new(&qsbr, (size_t)64 << 20, 1));
	bench_hash(x);
	index_free(x);
	bench_put(1, 1, 62500, 64);
	bench_put(1, 1, 62500, 1);
	bench_put(1, 100, 625, 64);
	bench_put(16, 50, 1250, 64);
	bench_full();
	bench_guess((size_t)220 << 10, 0, "LRU");
	bench_guess((size_t)220 << 10, UINT64_C(1) << 33, "end");
	bench_guess((size_t)1 << 20, 0, "LRU");
	bench_guess((size_t)1 << 20, UINT64_C(1) << 33, "end");
	bench_match();
	return 0;
}
