/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rand.h"
#include "bench.h"

/* As json.dumps writes them, with and without ensure_ascii; about one word in twelve is escaped or not ASCII. */
static const char *const words[] = {
	"the ", "gateway ",    "of ",	"prefix ",    "and ",	"a ",	     "request ", "cache ",
	"in ",	"block ",      "to ",	"decode ",    "is ",	"token ",    "that ",	 "engine ",
	"for ", "model ",      "with ", "attention ", "on ",	"memory ",   "as ",	 "scheduler ",
	"by ",	"throughput ", "this ", "answer ",    "which ", "question ", "return ",	 "def f(x): ",
	"not ", "kernel ",     "it ",	"bytes ",     "be ",	"stream ",   "from ",	 "latency ",
	"at ",	"pod ",	       "or ",	"batch ",     "are ",	"context ",  "an ",	 "document ",
};
static const char *const odd[] = {
	".\\n",	  "\\n\\n## ", "\\\"quoted\\\" ", "\\t",     "na\\u00efve ",	"\\u6f22\\u5b57 ",
	"größe ", "café ",     "日本語 ",	  "данные ", "\\\\path\\\\to ", "🚀 ",
};

char *prompt_text(uint64_t seed, size_t size)
{
	struct rng r = { .s = mix64(seed + 1) };
	char *text = malloc(size + 1);
	const char *w;
	size_t n = 0, len;

	if (!text)
		return NULL;
	for (;;) {
		w = rng_below(&r, 12) ? words[rng_below(&r, sizeof(words) / sizeof(words[0]))]
				      : odd[rng_below(&r, sizeof(odd) / sizeof(odd[0]))];
		len = strlen(w);
		if (n + len > size)
			break;
		memcpy(text + n, w, len);
		n += len;
	}
	memset(text + n, '.', size - n);
	text[size] = '\0';
	return text;
}

size_t event_build(char *to, size_t size)
{
	int n;

	n = snprintf(to, EVENT_MAX,
		     "data: {\"t\":\"%0*d\",\"id\":\"chatcmpl-6a0b5c1d2e3f4a5b\",\"object\":\"chat.completion.chunk\","
		     "\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
		     EVENT_STAMP, 0);
	while (n + 7 < (int)size && n + 8 < EVENT_MAX)
		to[n++] = 't';
	n += snprintf(to + n, EVENT_MAX - (size_t)n, "\"}}]}\n\n");
	return (size_t)n;
}
