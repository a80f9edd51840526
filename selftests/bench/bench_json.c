/* SPDX-License-Identifier: Apache-2.0
 * What walking and unescaping a request body costs, with each scanner that the CPU has. Build and run after `make`:
 *   gcc -O2 -D_GNU_SOURCE -Iuser selftests/bench/bench_json.c .output/libkvs.a -o .output/bench_json &&
 * .output/bench_json
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/buf.h"
#include "http/json.h"
#include "http/json_scan.h"

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* {"model": "m", "messages": [{"role": "user", "content": <about n bytes, made of <unit>>}]} */
static struct buf chat(const char *unit, size_t n)
{
	struct buf b = { 0 };

	buf_puts(&b, "{\"model\": \"m\", \"messages\": [{\"role\": \"user\", \"content\": \"");
	while (buf_len(&b) < n)
		buf_puts(&b, unit);
	buf_puts(&b, "\"}], \"stream\": true}");
	return b;
}

static struct buf turns(size_t n)
{
	struct buf b = { 0 };

	buf_puts(&b, "{\"model\": \"m\", \"messages\": [");
	while (buf_len(&b) < n)
		buf_puts(&b, "{\"role\": \"user\", \"content\": \"Which of the two is it, then?\"}, ");
	buf_puts(&b, "{}]}");
	return b;
}

static struct buf ids(size_t n)
{
	struct buf b = { 0 };

	buf_puts(&b, "{\"model\": \"m\", \"prompt\": [1");
	for (unsigned i = 0; buf_len(&b) < n; i++)
		buf_printf(&b, ", %u", i * 7919 % 151643);
	buf_puts(&b, "]}");
	return b;
}

/* Walk the body as the proxy does and unescape each string longer than 100 bytes. */
static void walk(struct str body, struct buf *out)
{
	struct json j;
	struct json_val v, k;

	json_init(&j, body);
	if (json_value(&j, &v) < 0)
		abort();
	while (j.depth) {
		int r = j.stack[j.depth] == JSON_T_OBJ ? json_member(&j, &k, &v) : json_element(&j, &v);

		if (r < 0)
			abort();
		if (r && v.kind == JSON_T_STR && v.raw.n > 100 && out && json_unescape(&v, out) < 0)
			abort();
	}
	if (json_end(&j) < 0)
		abort();
}

static void measure(const char *what, struct buf b)
{
	struct buf out = { 0 };
	double best[2] = { 1e9, 1e9 };

	for (int i = 0; i < 60; i++)
		for (int with = 0; with < 2; with++) {
			double t = now();

			walk(buf_str(&b), with ? &out : NULL);
			t = now() - t;
			best[with] = t < best[with] ? t : best[with];
			if (with && i < 59)
				buf_consume(&out, buf_len(&out));
		}
	printf("  %-34s %7zu bytes: walk %6.2f GB/s", what, buf_len(&b), (double)buf_len(&b) / best[0] / 1e9);
	if (buf_len(&out))
		printf(", unescape %6.2f GB/s", (double)buf_len(&b) / (best[1] - best[0]) / 1e9);
	printf("\n");
	buf_free(&b);
	buf_free(&out);
}

int main(void)
{
	static const char *const scans[] = { "avx512", "avx2", "sse2", "plain" };

	for (int i = 0; i < 4; i++) {
		if (json_scan_use(scans[i]) < 0)
			continue;
		printf("%s\n", scans[i]);
		measure("prose, no escapes", chat("The quick brown fox jumps over the lazy dog. ", 220000));
		measure("prose, no escapes", chat("The quick brown fox jumps over the lazy dog. ", 1000000));
		measure("prose, an escape in 72 bytes", chat("The quick brown fox jumps over the lazy dog, "
							     "and then it sleeps again.\\n",
							     220000));
		measure("code, an escape in 20 bytes", chat("\\tif (x == \\\"abc\\\")\\n\\t\\treturn f(x, y, z + 1);\\n"
							    "\\tfor (int i = 0; i < 10; i++)\\n",
							    220000));
		measure("Chinese, UTF-8", chat("敏捷的棕色狐狸跳过了懒狗。", 220000));
		measure("Chinese, \\u", chat("\\u654f\\u6377\\u7684\\u68d5\\u8272", 220000));
		measure("many short turns", turns(220000));
		measure("token ids", ids(220000));
	}
	return 0;
}
