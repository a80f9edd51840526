/* SPDX-License-Identifier: Apache-2.0
 * Our walk over chunked framing and the kernel's stop at any byte; the states of one are not quite those of the other.
 */
#include "datapath/splice_int.h"

bool frame_walk(const struct http_chunks *c, uint8_t *ret_walk, uint64_t *ret_left)
{
	static const uint8_t walk[] = {
		[HTTP_CHUNK_SIZE] = KVS_WALK_SIZE,	 [HTTP_CHUNK_EXT] = KVS_WALK_EXT,
		[HTTP_CHUNK_SIZE_LF] = KVS_WALK_SIZE_LF, [HTTP_CHUNK_DATA] = KVS_WALK_DATA,
		[HTTP_CHUNK_DATA_CR] = KVS_WALK_DATA_CR, [HTTP_CHUNK_DATA_LF] = KVS_WALK_DATA_LF,
		[HTTP_CHUNK_LINE] = KVS_WALK_LINE,	 [HTTP_CHUNK_NAME] = KVS_WALK_TRAILER,
		[HTTP_CHUNK_VALUE] = KVS_WALK_TRAILER,	 [HTTP_CHUNK_LINE_LF] = KVS_WALK_TRAILER_LF,
		[HTTP_CHUNK_END_LF] = KVS_WALK_LAST_LF,
	};

	if (c->state >= sizeof(walk))
		return false;
	*ret_walk = c->state == HTTP_CHUNK_SIZE && !c->digits ? KVS_WALK_SIZE_FIRST : walk[c->state];
	*ret_left = c->left;
	return true;
}
