/* SPDX-License-Identifier: Apache-2.0
 * Private to the rules of engines.
 */
#ifndef KVS_MODEL_CHAT_INT_H
#define KVS_MODEL_CHAT_INT_H

#include "model/chat.h"
#include "model/template_int.h"

struct chat_tokens {
	struct template_mem mem;
	struct chat_token {
		struct str name, text;
	} *at;
	unsigned n;
};

#endif
