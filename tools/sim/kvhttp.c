/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers begin at 0 with "created", as a new process does. What is over the buffer's size is forgotten, the oldest
 * first, which the reader sees as a gap.
 */
#include "kvhttp.h"

#include <errno.h>
#include <stdlib.h>

struct kvhttp {
	struct kv_sink sink;
	const struct opts *o;
	struct buf *ring; /* texts of events, behind "event_id" */
	uint64_t first, next;
};

static struct buf *add(struct kvhttp *h)
{
	struct buf *b = &h->ring[h->next % h->o->events_buffer];

	if (h->next - h->first == h->o->events_buffer)
		h->first++;
	h->next++;
	buf_consume(b, buf_len(b));
	return b;
}

static void created(struct kvhttp *h)
{
	buf_printf(add(h), "{\"type\":\"created\",\"num_blocks_per_cache_level\":[%u,0]}", h->o->kv_blocks);
}

static struct kvhttp *of(struct kv_sink *s)
{
	return container_of(s, struct kvhttp, sink);
}

static void stored(struct kv_sink *s, const struct kv_stored *e)
{
	struct kvhttp *h = of(s);
	struct buf *b = add(h);

	buf_puts(b, "{\"type\":\"stored\",\"parent_hash\":");
	if (e->parent)
		buf_printf(b, "%llu", (unsigned long long)digest_id(e->parent));
	else
		buf_puts(b, "null");
	buf_puts(b, ",\"blocks\":[");
	for (uint32_t i = 0; i < e->n; i++) {
		buf_printf(b, "%s{\"type\":\"stored_block\",\"block_hash\":%llu,\"tokens\":[", i ? "," : "",
			   (unsigned long long)digest_id(&e->hashes[i]));
		for (uint32_t k = 0; k < h->o->block_size; k++)
			buf_printf(b, "%s{\"type\":\"unique_token\",\"token_id\":%u,\"token_extra_id\":0}",
				   k ? "," : "", e->tokens[i * h->o->block_size + k]);
		buf_puts(b, "],\"cache_level\":0,\"priority\":35}");
	}
	buf_puts(b, "]}");
}

static void removed(struct kv_sink *s, const struct digest *d, bool below)
{
	buf_printf(add(of(s)), "{\"type\":\"removed\",\"block_hashes\":[%llu]}", (unsigned long long)digest_id(d));
}

/* TensorRT-LLM would name each block. */
static void cleared(struct kv_sink *s)
{
	created(of(s));
}

struct kvhttp *kvhttp_new(const struct opts *o)
{
	struct kvhttp *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->o = o;
	h->sink = (struct kv_sink){ stored, NULL, removed, cleared };
	h->ring = calloc(o->events_buffer, sizeof(*h->ring));
	if (!h->ring) {
		free(h);
		return NULL;
	}
	created(h);
	return h;
}

void kvhttp_free(struct kvhttp *h)
{
	if (!h)
		return;
	for (uint32_t i = 0; i < h->o->events_buffer; i++)
		buf_free(&h->ring[i]);
	free(h->ring);
	free(h);
}

struct kv_sink *kvhttp_sink(struct kvhttp *h)
{
	return &h->sink;
}

int kvhttp_drain(struct kvhttp *h, struct buf *out)
{
	int r = buf_puts(out, "[");

	for (uint64_t i = h->first; i < h->next && !r; i++) {
		struct buf *b = &h->ring[i % h->o->events_buffer];

		r = buf_printf(out, "%s{\"event_id\":%llu,\"data\":%.*s}", i == h->first ? "" : ",",
			       (unsigned long long)i, (int)buf_len(b), buf_data(b));
		buf_free(b);
	}
	h->first = h->next;
	return r ? r : buf_puts(out, "]");
}
