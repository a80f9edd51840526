/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts as vLLM 0.32 writes them, member by member. A stream's head goes out when the request is queued; each token is
 * one event, one chunk and one send. Faults in the middle of an answer happen here: after them nothing more is sent,
 * while the sequences run on until the engine lets them go.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/jw.h"
#include "base/time.h"
#include "sim.h"

#define FINGERPRINT "vllm-0.32.0-kvsim"

static void put_json_str(struct buf *b, struct str s)
{
	struct jw w;

	jw_init(&w, b);
	jw_strn(&w, s.p ? s : STR(""));
}

static struct buf *scratch(struct answer *a)
{
	struct buf *b = &a->c->pod->sim->scratch;

	buf_consume(b, buf_len(b));
	return b;
}

static const char *finish_name(enum finish f)
{
	return f == FINISH_STOP	    ? "\"stop\""
	       : f == FINISH_LENGTH ? "\"length\""
	       : f == FINISH_NONE   ? "null"
				    : "\"error\"";
}

/* --- sending --- */

/* One event's bytes as one chunk in one send. */
static void send_chunk(struct answer *a, struct buf *b)
{
	char size[24];
	struct iovec v[3];

	if (a->cut)
		return;
	if (a->c->minor == 0) {
		conn_send(a->c, buf_data(b), buf_len(b));
		return;
	}
	v[0] = (struct iovec){ size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", buf_len(b)) };
	v[1] = (struct iovec){ buf_data(b), buf_len(b) };
	v[2] = (struct iovec){ "\r\n", 2 };
	conn_sendv(a->c, v, 3);
}

static void end_stream(struct answer *a)
{
	if (a->c->minor == 0)
		conn_send(a->c, "data: [DONE]\n\n", 14);
	else
		conn_send(a->c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
}

/* A fault in the middle of a stream, in place of the event in <b>. */
static void break_stream(struct answer *a, struct buf *b)
{
	struct conn *c = a->c;
	char size[24];
	struct iovec v[2];

	switch (a->fault) {
	case FAULT_reset_mid_stream:
		conn_kill(c, true);
		break;
	case FAULT_fin_mid_chunk:
		v[0] = (struct iovec){ size, (size_t)snprintf(size, sizeof(size), "%zx\r\n", buf_len(b)) };
		v[1] = (struct iovec){ buf_data(b), buf_len(b) / 2 };
		conn_sendv(c, c->minor ? v : v + 1, c->minor ? 2 : 1);
		conn_finish(c);
		break;
	case FAULT_garbage_mid_stream:
		conn_send(c, "zz\r\nthis is no chunk\r\n", 22);
		conn_finish(c);
		break;
	case FAULT_stall_mid_stream:
		a->stalled = true;
		break;
	case FAULT_error_mid_stream:
		buf_consume(b, buf_len(b));
		buf_puts(b, "data: {\"error\":{\"message\":\"injected failure\",\"type\":\"InternalServerError\","
			    "\"param\":null,\"code\":500}}\n\n");
		send_chunk(a, b);
		end_stream(a);
		break;
	default:
		return;
	}
	a->cut = true;
}

static void send_event(struct answer *a, struct buf *b)
{
	if (a->cut)
		return;
	if (a->fault && a->events == a->c->pod->o.failure_after)
		break_stream(a, b);
	else
		send_chunk(a, b);
	a->events++;
}

/* --- usage --- */

static uint32_t made(const struct gen *g)
{
	return g->s.ntokens - g->s.nprompt;
}

static uint32_t cached(const struct gen *g)
{
	if (!g->s.remote)
		return (uint32_t)(g->s.cached * g->a->c->pod->o.cached_factor);
	return g->a->remote_cached != UINT32_MAX ? g->a->remote_cached : g->s.nprompt;
}

static uint32_t created(const struct gen *g)
{
	uint32_t bs = g->a->c->pod->o.block_size, full = g->s.nprompt / bs * bs;

	return g->s.remote || full < g->s.cached ? 0 : full - g->s.cached;
}

static void put_counts(const struct answer *a, uint32_t completion, struct buf *b)
{
	uint32_t prompt = 0;

	/* Choices of one prompt follow each other and count it once. */
	for (unsigned i = 0; i < a->n; i++)
		if (i == 0 || a->g[i].prompt != a->g[i - 1].prompt)
			prompt += a->g[i].s.nprompt;
	buf_printf(b, "\"usage\":{\"prompt_tokens\":%u,\"total_tokens\":%u,\"completion_tokens\":%u", prompt,
		   prompt + completion, completion);
}

static uint32_t made_all(const struct answer *a)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < a->n; i++)
		n += made(&a->g[i]);
	return n;
}

static void put_whole_usage(const struct answer *a, struct buf *b)
{
	put_counts(a, made_all(a), b);
	if (!a->c->pod->o.prompt_tokens_details)
		buf_puts(b, ",\"prompt_tokens_details\":null");
	else if (a->chat)
		buf_printf(b,
			   ",\"prompt_tokens_details\":{\"cached_tokens\":%u,\"created_cache_tokens\":%u,"
			   "\"multimodal_tokens\":null}",
			   cached(&a->g[0]), created(&a->g[0]));
	else
		buf_printf(b,
			   ",\"prompt_tokens_details\":{\"cached_tokens\":%u,\"created_cache_tokens\":null,"
			   "\"multimodal_tokens\":null}",
			   cached(&a->g[0]));
	buf_puts(b, ",\"completion_tokens_details\":null}");
}

static void put_stream_usage(const struct answer *a, struct buf *b)
{
	put_counts(a, made_all(a), b);
	if (a->c->pod->o.prompt_tokens_details) {
		buf_printf(b, ",\"prompt_tokens_details\":{\"cached_tokens\":%u", cached(&a->g[0]));
		if (a->chat)
			buf_printf(b, ",\"created_cache_tokens\":%u", created(&a->g[0]));
		buf_puts(b, "}");
	}
	buf_puts(b, "}");
}

/* --- streams --- */

static void put_event_end(const struct answer *a, struct buf *b)
{
	if (a->c->pod->o.stamp)
		buf_printf(b, ",\"kvsim_ns\":%llu", (unsigned long long)time_mono());
	buf_puts(b, "}\n\n");
}

static void put_token_ids(const struct gen *g, struct buf *b)
{
	if (g->a->want_ids && made(g))
		buf_printf(b, "\"token_ids\":[%u]}]", g->s.tokens[g->s.ntokens - 1]);
	else
		buf_puts(b, "\"token_ids\":null}]");
}

static void put_stop_reason(const struct gen *g, struct buf *b)
{
	buf_puts(b, "\"stop_reason\":");
	if (g->stop)
		put_json_str(b, str_of(g->stop));
	else
		buf_puts(b, "null");
	buf_puts(b, ",");
}

static void send_role(struct answer *a, unsigned index)
{
	struct buf *b = scratch(a);

	buf_put(b, buf_data(&a->prefix), buf_len(&a->prefix));
	buf_printf(b,
		   "[{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
		   "\"finish_reason\":null}],\"prompt_token_ids\":null,\"prompt_text\":null",
		   index);
	if (a->usage_each) {
		buf_puts(b, ",");
		put_counts(a, 0, b);
		buf_puts(b, "}");
	}
	put_event_end(a, b);
	send_event(a, b);
}

static void send_delta(struct gen *g, struct str delta)
{
	struct answer *a = g->a;
	struct buf *b = scratch(a);

	buf_put(b, buf_data(&a->prefix), buf_len(&a->prefix));
	buf_printf(b, "[{\"index\":%u,%s", g->index, a->chat ? "\"delta\":{\"content\":" : "\"text\":");
	put_json_str(b, delta);
	buf_printf(b, "%s,\"logprobs\":null,\"finish_reason\":%s,", a->chat ? "}" : "", finish_name(g->finish));
	if (!a->chat || g->finish)
		put_stop_reason(g, b);
	if (!a->chat)
		buf_puts(b, "\"prompt_token_ids\":null,");
	put_token_ids(g, b);
	if (a->usage_each) {
		buf_puts(b, ",");
		put_counts(a, made(g), b);
		buf_puts(b, "}");
	}
	put_event_end(a, b);
	send_event(a, b);
}

static void start_stream(struct answer *a)
{
	struct buf *b = scratch(a);

	if (a->c->minor == 0)
		a->c->close_after = true;
	head_start(b, a->c, 200);
	buf_puts(b, "content-type: text/event-stream; charset=utf-8\r\n");
	head_end(b, a->c, a->rid, a->c->minor > 0);
	conn_send(a->c, buf_data(b), buf_len(b));

	buf_puts(&a->prefix, "data: {\"id\":");
	put_json_str(&a->prefix, str_of(a->id));
	buf_printf(&a->prefix, ",\"object\":\"%s\",\"created\":%ld,\"model\":",
		   a->chat ? "chat.completion.chunk" : "text_completion", a->created);
	put_json_str(&a->prefix, str_of(a->model));
	buf_puts(&a->prefix, ",\"choices\":");
}

static void finish_stream(struct answer *a)
{
	struct buf *b = scratch(a);

	if (a->cut)
		return;
	if (a->usage) {
		buf_put(b, buf_data(&a->prefix), buf_len(&a->prefix));
		buf_puts(b, "[],");
		put_stream_usage(a, b);
		buf_puts(b, ",\"system_fingerprint\":\"" FINGERPRINT "\"}\n\n");
		send_chunk(a, b);
	}
	end_stream(a);
}

/* --- whole answers --- */

static void put_ids(struct buf *b, const char *key, const uint32_t *t, uint32_t n, bool wanted)
{
	buf_printf(b, ",\"%s\":%s", key, wanted ? "[" : "null");
	for (uint32_t i = 0; wanted && i < n; i++)
		buf_printf(b, "%s%u", i ? "," : "", t[i]);
	if (wanted)
		buf_puts(b, "]");
}

static void put_text(struct gen *g, struct buf *b)
{
	struct buf echo = { 0 };

	if (!g->a->echo) {
		put_json_str(b, buf_str(&g->text));
		return;
	}
	for (uint32_t i = 0; i < g->s.nprompt; i++) {
		struct str s = tok_piece(g->s.tokens[i]);

		buf_put(&echo, s.p, s.n);
	}
	buf_put(&echo, buf_data(&g->text), buf_len(&g->text));
	put_json_str(b, buf_str(&echo));
	buf_free(&echo);
}

static void put_choice(struct gen *g, struct buf *b)
{
	const struct seq *s = &g->s;
	bool ids = g->a->want_ids;

	if (g->index)
		buf_puts(b, ",");
	buf_printf(b, "{\"index\":%u,%s", g->index,
		   g->a->chat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"text\":");
	put_text(g, b);
	if (g->a->chat)
		buf_puts(b, ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,"
			    "\"reasoning\":null}");
	buf_printf(b, ",\"logprobs\":null,\"finish_reason\":%s,", finish_name(g->finish));
	put_stop_reason(g, b);
	b->len--; /* its comma */
	put_ids(b, "token_ids", s->tokens + s->nprompt, made(g), ids);
	if (!g->a->chat) {
		buf_puts(b, ",\"prompt_logprobs\":null");
		put_ids(b, "prompt_token_ids", s->tokens, s->nprompt, ids);
	}
	buf_puts(b, ",\"routed_experts\":null}");
}

/* What a decode pod gets to know; the ids of blocks are made up. */
static void put_transfer(const struct answer *a, struct buf *b)
{
	const struct pod *p = a->c->pod;
	const struct seq *s = &a->g[0].s;
	uint32_t n = (s->nprompt + p->o.block_size - 1) / p->o.block_size;

	if (!a->remote_decode || a->g[0].finish > FINISH_LENGTH) {
		buf_puts(b, ",\"kv_transfer_params\":null");
		return;
	}
	buf_puts(b, ",\"kv_transfer_params\":{\"do_remote_prefill\":true,\"do_remote_decode\":false,\"remote_block_"
		    "ids\":[[");
	for (uint32_t i = 0; i < n; i++)
		buf_printf(b, "%s%u", i ? "," : "", i + 1);
	buf_printf(b, "]],\"remote_engine_id\":\"%s\",\"remote_request_id\":", p->engine_id);
	put_json_str(b, str_of(a->id));
	buf_printf(b,
		   ",\"remote_host\":\"%s\",\"remote_port\":%u,\"tp_size\":1,\"dcp_size\":1,\"pp_size\":1,"
		   "\"remote_num_tokens\":%u,\"remote_blocks_expiry_time\":null,\"transfer_mode\":\"pull\","
		   "\"remote_prefill_cached_tokens\":%u}",
		   p->host, 5600 + p->index, s->nprompt, s->cached);
}

static void put_whole(struct answer *a, struct buf *b)
{
	buf_puts(b, "{\"id\":");
	put_json_str(b, str_of(a->id));
	buf_printf(b, ",\"object\":\"%s\",\"created\":%ld,\"model\":", a->chat ? "chat.completion" : "text_completion",
		   a->created);
	put_json_str(b, str_of(a->model));
	buf_puts(b, ",\"choices\":[");
	for (unsigned i = 0; i < a->n; i++)
		put_choice(&a->g[i], b);
	buf_puts(b, "],\"service_tier\":null,\"system_fingerprint\":\"" FINGERPRINT "\",");
	put_whole_usage(a, b);
	if (a->chat) {
		buf_puts(b, ",\"prompt_logprobs\":null");
		put_ids(b, "prompt_token_ids", a->g[0].s.tokens, a->g[0].s.nprompt, a->want_ids);
		buf_puts(b, ",\"prompt_text\":null");
	}
	put_transfer(a, b);
	buf_puts(b, ",\"ec_transfer_params\":null,\"metrics\":null}");
}

static void finish_whole(struct answer *a)
{
	struct conn *c = a->c;
	struct buf *b = scratch(a), body = { 0 };
	size_t n;

	put_whole(a, &body);
	a->stalled = a->fault == FAULT_stall_mid_stream;
	head_start(b, c, 200);
	buf_printf(b, "content-length: %zu\r\ncontent-type: application/json\r\n", buf_len(&body));
	head_end(b, c, a->rid, false);
	n = a->fault ? buf_len(&body) / 2 : buf_len(&body);
	buf_put(b, buf_data(&body), n);
	conn_send(c, buf_data(b), buf_len(b));
	buf_free(&body);
	if (a->fault == FAULT_reset_mid_stream)
		conn_kill(c, true);
	else if (a->fault && !a->stalled)
		conn_finish(c);
}

/* --- life --- */

void answer_start(struct answer *a)
{
	if (a->stream)
		start_stream(a);
}

void answer_free(struct answer *a)
{
	if (!a)
		return;
	for (unsigned i = 0; a->g && i < a->n; i++) {
		struct gen *g = &a->g[i];

		if (g->started && !g->done)
			engine_abort(&a->c->pod->e, &g->s, time_mono());
		seq_free(&g->s);
		buf_free(&g->text);
	}
	free(a->g);
	free(a->model);
	free(a->lora_name);
	free(a->lora_path);
	free(a->salt);
	free(a->echo_ids);
	json_decref(a->body);
	buf_free(&a->prefix);
	free(a);
}

/* How much of the text may go out: not a cut character, nor what may turn out to be a stop string. */
static size_t sendable(const struct gen *g)
{
	size_t len = buf_len(&g->text), keep = g->a->stop_longest ? g->a->stop_longest - 1 : 0;
	const char *t = buf_data(&g->text);

	if (g->finish)
		return len;
	len = len > keep ? len - keep : 0;
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned char c = (unsigned char)t[len - back];

		if (c < 0x80)
			break;
		if (c >= 0xc0) { /* a lead byte: is its character whole? */
			if (back < (c >= 0xf0 ? 4u : c >= 0xe0 ? 3u : 2u))
				len -= back;
			break;
		}
	}
	return len > g->sent ? len : g->sent;
}

/* Does the text now end the answer? Cut it before the stop string. */
static bool stopped(struct gen *g, size_t piece)
{
	const struct answer *a = g->a;
	size_t len = buf_len(&g->text);

	for (unsigned i = 0; i < a->nstop; i++) {
		size_t n = strlen(a->stop[i]), from = len > piece + n - 1 ? len - piece - n + 1 : 0;
		char *at = memmem(buf_data(&g->text) + from, len - from, a->stop[i], n);

		if (!at)
			continue;
		g->stop = a->stop[i];
		g->text.len = g->text.off + (size_t)(at - buf_data(&g->text));
		return true;
	}
	return false;
}

static uint32_t next_token(struct gen *g)
{
	struct answer *a = g->a;

	if (a->necho)
		return a->echo_ids[made(g) % a->necho];
	return tok_random(&g->rng, &g->word);
}

enum finish gen_token(struct engine *e, struct seq *s)
{
	struct gen *g = container_of(s, struct gen, s);
	struct answer *a = g->a;
	uint32_t id, n;
	struct str piece;
	size_t upto;

	if (a->cut && !a->stalled)
		return FINISH_ERROR;
	if (a->chat && a->stream && !made(g))
		send_role(a, g->index);
	id = next_token(g);
	if (seq_push(s, id))
		return FINISH_ERROR;
	piece = tok_piece(id);
	buf_put(&g->text, piece.p, piece.n);
	n = made(g);
	if (a->nstop && n >= a->min_tokens && stopped(g, piece.n))
		g->finish = FINISH_STOP;
	else if (n >= a->max_tokens)
		g->finish = FINISH_LENGTH;
	else if (!a->ignore_eos && n >= a->min_tokens && n >= (a->necho ? a->necho : g->eos_at))
		g->finish = FINISH_STOP;
	if (a->stream) {
		upto = sendable(g);
		if (upto > buf_len(&g->text))
			upto = buf_len(&g->text);
		send_delta(g, (struct str){ buf_data(&g->text) + g->sent, upto > g->sent ? upto - g->sent : 0 });
		g->sent = upto;
	}
	return g->finish;
}

void gen_done(struct engine *e, struct seq *s, enum finish why)
{
	struct gen *g = container_of(s, struct gen, s);
	struct answer *a = g->a;
	struct conn *c = a->c;

	g->done = true;
	if (--a->left)
		return;
	if (a->stream)
		finish_stream(a);
	else if (!c->dead)
		finish_whole(a);
	if (a->stalled)
		return; /* the client has to go first */
	c->answer = NULL;
	answer_free(a);
	conn_done(c);
}
