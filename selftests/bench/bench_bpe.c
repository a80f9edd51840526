/* SPDX-License-Identifier: Apache-2.0
 * Texts → ids with the encoder of one model: bench_bpe DIR TEXTS [IDS]
 *
 * TEXTS and IDS are runs of records, a uint32_t with the number of bytes (ids) and then those. IDS is written for
 * selftests/real/bpe.py, which compares it and makes TEXTS. Prints the seconds of a first pass over all texts, of the
 * fastest of three later ones, and of loading the compiled file; then the marks that canonicity puts into the texts'
 * own ids, which is none if all is well, and its microseconds for a block of 16 tokens.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/time.h"
#include "model/canon.h"

static void die(const char *what, const char *why)
{
	fprintf(stderr, "bench_bpe: %s: %s\n", what, why);
	exit(1);
}

static struct buf read_file(const char *path)
{
	FILE *f = fopen(path, "r");
	struct buf b = { 0 };
	char *p;

	if (!f)
		die(path, strerror(errno));
	while (!feof(f) && !ferror(f) && (p = buf_room(&b, 1 << 20)))
		buf_commit(&b, fread(p, 1, 1 << 20, f));
	fclose(f);
	return b;
}

static struct encoder *e;

/* All texts; their ids go to <out>, if there is one. Returns the seconds. */
static double pass(const struct buf *texts, FILE *out)
{
	const char *p = buf_data(texts), *end = p + buf_len(texts);
	struct buf ids = { 0 };
	uint64_t start = time_ns_of(CLOCK_PROCESS_CPUTIME_ID);

	while (end - p >= 4) {
		uint32_t n, count;
		int r;

		memcpy(&n, p, 4);
		ids.len = ids.off = 0;
		r = encoder_encode(e, (struct str){ p + 4, n }, false, &ids);
		if (r)
			die("a text", strerror(-r));
		p += 4 + n;
		count = (uint32_t)(buf_len(&ids) / 4);
		if (out && (fwrite(&count, 4, 1, out) != 1 || fwrite(buf_data(&ids), 4, count, out) != count))
			die("ids", strerror(errno));
	}
	buf_free(&ids);
	return (double)(time_ns_of(CLOCK_PROCESS_CPUTIME_ID) - start) / 1e9;
}

/* The texts' own ids as an engine announces them, in blocks of 16: how many are marked, which is none if all is well.
 */
static double canonicity(const struct buf *texts, struct vocab *v, unsigned *ret_marks, unsigned *ret_blocks)
{
	const char *p = buf_data(texts), *end = p + buf_len(texts);
	struct canon *c = canon_new(v);
	struct buf ids = { 0 }, out = { 0 };
	double sum = 0;

	while (c && end - p >= 4) {
		struct canon_tail tail = { 0 };
		const uint32_t *id;
		uint64_t start;
		uint32_t n;

		memcpy(&n, p, 4);
		ids.len = ids.off = 0;
		if (encoder_encode(e, (struct str){ p + 4, n }, false, &ids))
			die("a text", "not encoded");
		p += 4 + n;
		id = (const uint32_t *)(const void *)buf_data(&ids);
		start = time_ns_of(CLOCK_PROCESS_CPUTIME_ID);
		for (size_t i = 0, m = buf_len(&ids) / 4, k; i < m; i += k) {
			int r;

			k = m - i < 16 ? m - i : 16;
			out.len = out.off = 0;
			r = canon_text(c, &tail, id + i, k, &out);
			if (r < 0)
				die("canonicity", strerror(-r));
			if (r && getenv("KVS_SHOW"))
				fprintf(stderr, "marked: text %.*s at %zu: %.*s\n", (int)n, p - n, i,
					(int)buf_len(&out), buf_data(&out));
			*ret_marks += (unsigned)r;
			++*ret_blocks;
		}
		sum += (double)(time_ns_of(CLOCK_PROCESS_CPUTIME_ID) - start) / 1e9;
	}
	canon_free(c);
	buf_free(&ids);
	buf_free(&out);
	return sum;
}

int main(int argc, char **argv)
{
	double first, warm = 1e9, load, canon;
	unsigned marks = 0, blocks = 0;
	struct buf texts;
	struct vocab *v;
	char err[512];
	FILE *out = NULL;
	uint64_t start;

	if (argc < 3)
		die("usage", "bench_bpe DIR TEXTS [IDS]");
	v = vocab_load(argv[1], getenv("KVS_CACHE"), err, sizeof(err));
	if (!v)
		die("tokenizer", err);
	vocab_unref(v);
	start = time_ns_of(CLOCK_PROCESS_CPUTIME_ID);
	v = vocab_load(argv[1], getenv("KVS_CACHE"), err, sizeof(err));
	load = (double)(time_ns_of(CLOCK_PROCESS_CPUTIME_ID) - start) / 1e9;
	e = v ? encoder_new(v) : NULL;
	if (!e)
		die("no encoder", v ? vocab_no_encoder(v) : err);
	texts = read_file(argv[2]);
	first = pass(&texts, NULL);
	for (int i = 0; i < 3; i++) {
		double t = pass(&texts, NULL);

		warm = t < warm ? t : warm;
	}
	if (argc > 3) {
		out = fopen(argv[3], "w");
		if (!out)
			die(argv[3], strerror(errno));
		pass(&texts, out);
		fclose(out);
	}
	canon = canonicity(&texts, v, &marks, &blocks);
	printf("%.6f %.6f %.6f %u %.3f\n", first, warm, load, marks, blocks ? canon * 1e6 / blocks : 0);
	buf_free(&texts);
	encoder_free(e);
	vocab_unref(v);
	return 0;
}
