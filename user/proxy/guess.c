/* SPDX-License-Identifier: Apache-2.0
 *
 * The index is told what a pod will hold, once the request has left for it. Until the answer's head is there that may
 * turn out wrong: then the pod has not got it, and another one may. So what was told is kept until then, but only the
 * hashes at which the index keeps guesses.
 *
 * A client that goes does not make it wrong: engines keep what they have computed so far, or events say otherwise.
 */
#include <stdlib.h>

#include "proxy/proxy_int.h"

static void post(struct request *r, const struct leg *leg, bool drop)
{
	const struct told *t = &r->told;
	uint32_t q8 = atomic_load_explicit(&r->pool->bytes_per_token_q8, memory_order_relaxed);
	struct index_guess g = {
		.holder = leg->holder,
		.ns = t->ns,
		.at = t->at + index_places(0, leg->from),
		.from = leg->from,
		.n = t->chunks,
		.age = leg->age,
		.tokens_per_chunk_q8 = INDEX_CHUNK * 256 * 256 / (q8 ? q8 : 1024),
		.until_ns = leg->exact ? loop_now(r->c->w->loop) + EVENTS_GUESS_LIFE : 0,
		.lru_chunks = leg->lru_chunks,
	};

	if (leg->holder != NO_HOLDER && index_places(leg->from, t->chunks))
		(void)events_guess(r->c->w->sh->events, &g, drop); /* without memory it goes untold */
}

void guess_tell(struct request *r)
{
	struct told *t = &r->told;

	if (!t->chunks || t->leg)
		return;
	if (!t->at) {
		t->at = malloc(index_places(0, t->chunks) * sizeof(*t->at));
		if (!t->at)
			return;
		index_thin(r->in->prompt.hash.at, 0, t->chunks, t->at);
	}
	t->leg = (uint8_t)(r->leg + 1);
	if (!r->resp_head || r->status < 400)
		post(r, &r->legs[r->leg], false);
	if (r->resp_head)
		guess_settled(r);
}

void guess_undo(struct request *r)
{
	if (r->told.leg)
		post(r, &r->legs[r->told.leg - 1], true);
	r->told.leg = 0;
}

void guess_settled(struct request *r)
{
	free(r->told.at);
	r->told = (struct told){ 0 };
}

size_t guess_memory(const struct request *r)
{
	return r->told.at ? index_places(0, r->told.chunks) * sizeof(*r->told.at) : 0;
}
