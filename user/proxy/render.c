/* SPDX-License-Identifier: Apache-2.0
 *
 * A chat's text, as the engine's template makes it out of the whole body, hashed while it is written. It replaces the
 * canonical form of the messages that the walk over the body has gathered; where it cannot be told exactly, that form
 * stays, and the match is approximate: a text that may be wrong by a byte would be worse than none.
 */
#include <errno.h>
#include <time.h>

#include "proxy/proxy_int.h"

#define HASH_AT 4096 /* as in inspect.c */

/* Steps are some 20 ns each: no request keeps a worker for long. */
#define STEPS_MIN  (256u << 10)
#define OUTPUT_MIN (1u << 20)
#define MEMORY_MAX (128u << 20)

struct rendering {
	struct worker *w;
	struct prompt text;
};

static int put(void *ctx, const char *p, size_t n)
{
	struct rendering *r = ctx;
	int e = buf_put(&r->text.text, p, n);

	if (e == 0 && r->text.text.len - r->text.hash.bytes >= HASH_AT)
		e = prompt_hash(r->w, &r->text);
	return e;
}

static enum stats_id counter(int result, bool media)
{
	switch (result) {
	case TEMPLATE_OK:
		return media ? STATS_RENDER_MEDIA : STATS_RENDER_OK;
	case TEMPLATE_RAISED:
		return media ? STATS_RENDER_MEDIA : STATS_RENDER_RAISED;
	case TEMPLATE_LIMIT:
		return STATS_RENDER_LIMIT;
	case TEMPLATE_UNSURE:
		return STATS_RENDER_UNSURE;
	default:
		return STATS_RENDER_MEMORY;
	}
}

void render_chat(struct worker *w, struct inspection *in, const struct proxy_pool *pool, uint32_t lacking)
{
	struct str body = { in->json.text, in->json.n };
	struct template_limits limits = { STEPS_MIN + body.n, OUTPUT_MIN + 8 * body.n, MEMORY_MAX };
	struct rendering r = { .w = w };
	struct template_error err;
	bool media = false;
	struct chat_in chat = { .request = body,
				.api = in->kind == API_MESSAGES	   ? CHAT_MESSAGES
				       : in->kind == API_RESPONSES ? CHAT_RESPONSES
								   : CHAT_COMPLETIONS,
				.lacking = lacking,
				.now = (int64_t)time(NULL),
				.limits = &limits,
				.media = &media };
	int result = TEMPLATE_SINK;

	if (!w->template_work)
		w->template_work = template_work_new();
	if (w->template_work &&
	    prompt_start(w, &r.text, in->special && pool->vocab ? vocab_prefix(pool->vocab) : (struct str){ NULL, 0 },
			 body.n) == 0)
		result = chat_model_render(pool->chat, in->tools, w->template_work, &chat,
					   (struct template_sink){ put, &r }, &err);
	if (result == TEMPLATE_OK && prompt_hash(w, &r.text))
		result = TEMPLATE_SINK;
	stats_inc(w->st, counter(result, media));
	/* What images and the like become is the model's affair, and their hashes are in the engine's chain. */
	if (result == TEMPLATE_OK && !media) {
		prompt_end(w, &in->prompt);
		in->prompt = r.text;
		in->exact = true;
	} else {
		prompt_end(w, &r.text);
	}
}
