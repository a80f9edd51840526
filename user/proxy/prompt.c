/* SPDX-License-Identifier: Apache-2.0
 *
 * A prompt's text, hashed while it grows: what has just been written is still in the nearest cache, and after the
 * body's last byte there is nothing left to do but to look up.
 *
 * Fresh memory costs a page fault for every 4 KB, more than reading and hashing them. So a worker keeps what the last
 * prompt was read into for the next one that begins.
 */
#include <errno.h>
#include <stdlib.h>

#include "model/encoder.h"
#include "proxy/proxy_int.h"

#define SPARE_MAX (4u << 20) /* of text; more than that is given back at once */
#define SLACK	  16384	     /* copying asks for more room than it fills */

int prompt_start(struct worker *w, struct prompt *p, struct str prefix, size_t expect)
{
	if (!p->text.mem) {
		*p = w->spare;
		w->spare = (struct prompt){ 0 };
	}
	p->text.off = p->text.len = 0;
	index_text_init(&p->hash, p->hash.at, p->hash.cap);
	p->prefix = (uint32_t)prefix.n;
	p->odd = false;
	if (!buf_room(&p->text, prefix.n + expect + SLACK))
		return -ENOMEM;
	return buf_put(&p->text, prefix.p, prefix.n);
}

int prompt_hash(struct worker *w, struct prompt *p)
{
	size_t need = p->text.len / INDEX_CHUNK + 2;
	const char *more = p->text.mem + p->hash.bytes;

	if (need > p->hash.cap) {
		/* By the text's room, so that it grows when that does. */
		size_t cap = p->text.cap / INDEX_CHUNK + 2;
		uint64_t *at = cap > UINT32_MAX ? NULL : realloc(p->hash.at, cap * sizeof(*at));

		if (!at)
			return -ENOMEM;
		p->hash.at = at;
		p->hash.cap = (uint32_t)cap;
	}
	p->odd = p->odd || text_may_be_rewritten(more, p->text.len - p->hash.bytes);
	return index_text_feed(w->sh->index, &p->hash, more, p->text.len - p->hash.bytes);
}

int prompt_rewrite(struct worker *w, struct prompt *p, const struct vocab *v)
{
	struct buf to = { 0 };
	int r = p->odd ? vocab_rewrite(v, buf_str(&p->text), &to) : 0;

	if (r <= 0)
		return r;
	buf_free(&p->text);
	p->text = to;
	index_text_init(&p->hash, p->hash.at, p->hash.cap);
	return prompt_hash(w, p);
}

int prompt_set_prefix(struct worker *w, struct prompt *p, struct str prefix)
{
	size_t own = p->text.len - p->prefix;

	if (str_eq(prefix, (struct str){ p->text.mem, p->prefix }))
		return 0;
	if (prefix.n > p->prefix && !buf_room(&p->text, prefix.n - p->prefix))
		return -ENOMEM;
	memmove(p->text.mem + prefix.n, p->text.mem + p->prefix, own);
	if (prefix.n)
		memcpy(p->text.mem, prefix.p, prefix.n);
	p->text.len = prefix.n + own;
	p->prefix = (uint32_t)prefix.n;
	index_text_init(&p->hash, p->hash.at, p->hash.cap);
	return prompt_hash(w, p);
}

static void prompt_free(struct prompt *p)
{
	buf_free(&p->text);
	free(p->hash.at);
	*p = (struct prompt){ 0 };
}

void prompt_end(struct worker *w, struct prompt *p)
{
	if (p->text.cap > w->spare.text.cap && p->text.cap <= SPARE_MAX) {
		prompt_free(&w->spare);
		w->spare = *p;
		*p = (struct prompt){ 0 };
	}
	prompt_free(p);
}

void prompt_forget_spare(struct worker *w)
{
	prompt_free(&w->spare);
}

size_t prompt_memory(const struct prompt *p)
{
	return p->text.cap + p->hash.cap * sizeof(*p->hash.at);
}
