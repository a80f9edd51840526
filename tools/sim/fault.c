/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "sim.h"

enum fault fault_draw(const struct request *r)
{
	struct pod *p = r->c->pod;
	struct str h = http_header_get(r->head, STR("x-kvsim-fault"));
	enum fault of[FAULT_N];
	unsigned n = 0;
	char name[32];

	if (h.n && h.n < sizeof(name)) {
		memcpy(name, h.p, h.n);
		name[h.n] = 0;
		return fault_parse(name);
	}
	if (p->o.failure_rate <= 0 || rng_unit(&p->rng) * 100 >= p->o.failure_rate)
		return FAULT_NONE;
	for (unsigned i = 1; i < FAULT_N; i++)
		if (p->o.failure_types[i])
			of[n++] = i;
	return n ? of[rng_below(&p->rng, n)] : FAULT_NONE;
}

bool fault_before(const struct request *r, enum fault f)
{
	struct conn *c = r->c;

	if (f)
		c->pod->faults++;
	switch (f) {
	case FAULT_rate_limit:
		reply_error(r, 429, "RateLimitError", NULL, "injected failure: rate limit reached");
		return true;
	case FAULT_invalid_api_key:
		reply_error(r, 401, "AuthenticationError", NULL, "injected failure: invalid API key");
		return true;
	case FAULT_context_length:
		reply_error(r, 400, "BadRequestError", "input_tokens", "injected failure: context length exceeded");
		return true;
	case FAULT_server_error:
		reply_error(r, 503, "ServiceUnavailableError", NULL, "injected failure: server error");
		return true;
	case FAULT_invalid_request:
		reply_error(r, 400, "BadRequestError", NULL, "injected failure: invalid request");
		return true;
	case FAULT_model_not_found:
		reply_error(r, 404, "NotFoundError", "model", "injected failure: the model does not exist");
		return true;
	case FAULT_reset_before_head:
		conn_kill(c, true);
		return true;
	case FAULT_fin_before_head:
		conn_kill(c, false);
		return true;
	case FAULT_garbage:
		conn_send(c, "\x16\x03\x01 this is no HTTP\r\n\r\n", 23);
		conn_finish(c);
		return true;
	case FAULT_stall: /* busy for ever: until the client goes */
		return true;
	default:
		return false;
	}
}
