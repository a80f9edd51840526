/* SPDX-License-Identifier: Apache-2.0
 * What a head and an event of no interest cost. Build and run after `make`:
 *   gcc -O2 -D_GNU_SOURCE -Iuser selftests/bench/bench_http.c .output/libkvs.a -o .output/bench_http &&
 * .output/bench_http
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "http/http.h"
#include "http/sse.h"

static const char request[] =
	"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway.example:8080\r\nAccept-Encoding: gzip, deflate\r\n"
	"Connection: keep-alive\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
	"User-Agent: OpenAI/Python 1.99.1\r\nX-Stainless-Lang: python\r\nX-Stainless-Package-Version: 1.99.1\r\n"
	"X-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\nX-Stainless-Runtime: CPython\r\n"
	"X-Stainless-Runtime-Version: 3.12.3\r\nAuthorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n"
	"X-Stainless-Async: false\r\nx-stainless-retry-count: 0\r\nx-stainless-read-timeout: 600\r\n"
	"Content-Length: 1033\r\n\r\n";

static const char event[] =
	"data: {\"id\":\"chatcmpl-6a0b5c1d2e3f4a5b\",\"object\":\"chat.completion.chunk\",\"created\":1790147847,"
	"\"model\":\"Qwen/Qwen3-8B-Instruct\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the token\"},"
	"\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}],\"usage\":null}\n\n";
static const char last[] = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":2,"
			   "\"total_tokens\":42,\"prompt_tokens_details\":{\"cached_tokens\":32}}}\n\n";

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double best(double *b, double since)
{
	double t = now();

	if (*b == 0 || t - since < *b)
		*b = t - since;
	return now();
}

int main(void)
{
	static struct http_head h;
	struct str s = STR(request);
	double end = 0, parse = 0, none = 0, some = 0;
	enum { N = 500, ROUNDS = 1000 };

	for (int round = 0; round < ROUNDS; round++) {
		struct usage_watch w;
		double t = now();
		unsigned n = 0;

		for (int i = 0; i < N; i++) {
			size_t scanned = 0;

			n += http_head_end(s, &scanned) == (ssize_t)s.n;
		}
		t = best(&end, t);
		for (int i = 0; i < N; i++)
			n += http_parse_request(s, &h, NULL) == 0;
		t = best(&parse, t);
		usage_watch_init(&w, true);
		for (int i = 0; i < N; i++)
			usage_watch_feed(&w, event, sizeof(event) - 1);
		t = best(&none, t);
		for (int i = 0; i < N; i++)
			usage_watch_feed(&w, last, sizeof(last) - 1);
		best(&some, t);
		if (n != 2 * N || w.events != 2 * N || w.usage.cached != 32)
			abort();
	}
	printf("%zu-byte head, %u headers: find its end %.0f ns, parse %.0f ns\n", s.n, h.nheaders, end / N * 1e9,
	       parse / N * 1e9);
	printf("%zu-byte event with usage null %.0f ns, %zu-byte event with usage %.0f ns\n", sizeof(event) - 1,
	       none / N * 1e9, sizeof(last) - 1, some / N * 1e9);
	return 0;
}
