/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a match really ends: at an end of a token of this prompt. The last block of another prompt, or of an answer,
 * may end inside of what is one word here, cut otherwise (model/edge.c).
 */
#include <stdlib.h>

#include "model/encoder.h"
#include "proxy/proxy_int.h"

static struct encoder *edge_of(struct worker *w, const struct proxy_pool *pool)
{
	size_t i = (size_t)(pool - w->sh->pools);

	if (!pool->vocab || vocab_no_encoder(pool->vocab))
		return NULL;
	if (!w->edges)
		w->edges = calloc(w->sh->cfg->npools, sizeof(*w->edges));
	if (w->edges && !w->edges[i])
		w->edges[i] = encoder_new_small(pool->vocab);
	return w->edges ? w->edges[i] : NULL;
}

void edge_settle(struct worker *w, const struct proxy_pool *pool, struct str text, struct index_hit *hit)
{
	struct encoder *e = hit->bytes ? edge_of(w, pool) : NULL;

	while (e && hit->bytes && !encoder_cuts(e, text, hit->bytes))
		index_hit_shorten(w->sh->index, hit);
}

void edges_free(struct worker *w)
{
	for (unsigned i = 0; w->edges && i < w->sh->cfg->npools; i++)
		encoder_free(w->edges[i]);
	free(w->edges);
	w->edges = NULL;
}
