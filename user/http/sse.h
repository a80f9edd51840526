/* SPDX-License-Identifier: Apache-2.0
 * What an answer says about itself, watched while it passes: usage, finish reason, the end mark. Works on bodies of
 * text/event-stream in every legal framing (LF, CRLF, CR; "data:" with or without a space; comments) and on one-shot
 * JSON bodies, in constant memory, wherever in the answer the members stand. The bytes are never changed.
 */
#ifndef KVS_HTTP_SSE_H
#define KVS_HTTP_SSE_H

#include <stdbool.h>
#include <stdint.h>

struct usage {
	bool seen;	   /* a usage object with prompt_tokens (or input_tokens) was found; the last one counts */
	bool cached_known; /* prompt_tokens_details.cached_tokens (or Anthropic's cache_read_input_tokens) is a number
			    */
	uint32_t prompt, completion, cached;
};

/* Opaque to the caller; about 100 bytes. */
struct usage_watch {
	struct usage usage;
	uint32_t events; /* SSE events with data seen */
	bool done;	 /* "data: [DONE]" seen */
	bool sse;
	uint8_t state[64];
};

void usage_watch_init(struct usage_watch *w, bool sse);

/* <n> bytes of body data (chunk framing removed), cut anywhere. Cheap where nothing is of interest: it looks for the
 * quoted key "usage" by memchr/memmem-like steps and parses only behind it. */
void usage_watch_feed(struct usage_watch *w, const char *p, uint64_t n);

#endif
