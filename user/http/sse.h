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
	bool seen; /* a usage object with prompt_tokens (or input_tokens) was found; the last one counts */
	/* prompt_tokens_details.cached_tokens, input_tokens_details.cached_tokens or cache_read_input_tokens was a
	 * number, in this object or, where it says nothing, in an earlier one of the same answer */
	bool cached_known;
	uint32_t prompt, completion, cached;
	uint32_t created; /* cache_creation_input_tokens */
};

struct usage_watch {
	struct usage usage;
	uint32_t events; /* SSE events with data that are complete; "[DONE]" is one too */
	bool done;	 /* "data: [DONE]" seen */
	bool sse;
	/* private from here */
	uint8_t line;	/* where in a line of the stream */
	uint8_t name;	/* bytes of the field name that match so far */
	uint8_t mark;	/* bytes of [DONE] that match so far */
	bool cr;	/* the last byte was a CR */
	bool data;	/* the event has data */
	uint8_t text;	/* where in the JSON text */
	uint8_t needle; /* bytes of the key "usage" that match so far */
	bool slash;	/* the last byte was a backslash */
	bool integer;	/* the number being read is one */
	uint8_t depth;	/* in the usage object */
	uint8_t member; /* which one the next value belongs to */
	uint8_t parent; /* and which one the value at depth 2 is part of */
	uint8_t have;	/* which of <value> were found in this object */
	uint8_t key_len;
	char key[28];
	uint32_t value[4];
	uint64_t number;
};

void usage_watch_init(struct usage_watch *w, bool sse);

/* <n> bytes of body data (chunk framing removed), cut anywhere. Cheap where nothing is of interest: it looks for the
 * quoted key "usage", sixteen bytes at a time, and parses only behind it. */
void usage_watch_feed(struct usage_watch *w, const char *p, uint64_t n);

#endif
