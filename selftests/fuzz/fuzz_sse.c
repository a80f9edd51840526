/* SPDX-License-Identifier: Apache-2.0
 * Any bytes as an event stream and as a one-shot body: whole, byte by byte and in pieces, the watch sees the same.
 */
#include <stdlib.h>
#include <string.h>

#include "http/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct usage_watch feed(const char *p, size_t size, bool sse, size_t first, size_t cut)
{
	struct usage_watch w;

	memset(&w, 0xa5, sizeof(w));
	usage_watch_init(&w, sse);
	for (size_t at = 0, n; at < size; at += n) {
		/* Each piece in a block of its own: a look beyond it is seen. */
		n = at ? cut : first;
		n = size - at < n ? size - at : n;

		char *piece = malloc(n);

		memcpy(piece, p + at, n);
		usage_watch_feed(&w, piece, n);
		free(piece);
	}
	return w;
}

static void same(const struct usage_watch *a, const struct usage_watch *b)
{
	if (a->usage.seen != b->usage.seen || a->usage.cached_known != b->usage.cached_known ||
	    a->usage.prompt != b->usage.prompt || a->usage.completion != b->usage.completion ||
	    a->usage.cached != b->usage.cached || a->events != b->events || a->done != b->done)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t cuts[] = { 1, 2, 5, 16, 17, 33 };
	const char *p = (const char *)data;

	for (int sse = 0; sse < 2 && size; sse++) {
		struct usage_watch whole = feed(p, size, sse, size, size);

		if (whole.usage.cached_known && !whole.usage.seen)
			abort();
		for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
			struct usage_watch w = feed(p, size, sse, i ? 1 + data[0] % 40 : 1, cuts[i]);

			same(&whole, &w);
		}
	}
	return 0;
}
