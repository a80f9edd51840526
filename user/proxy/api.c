/* SPDX-License-Identifier: Apache-2.0
 *
 * The paths of an engine's API that clients may use. All others are its operator's.
 */
#include <string.h>

#include "proxy/proxy_int.h"

static const struct {
	const char *path;
	enum api_kind kind;
} apis[] = {
	{ "/v1/completions", API_COMPLETIONS },
	{ "/v1/chat/completions", API_CHAT },
	{ "/v1/embeddings", API_OTHER },
	{ "/v1/responses", API_RESPONSES },
	{ "/v1/messages", API_MESSAGES },
	{ "/v1/messages/count_tokens", API_OTHER },
	{ "/v1/rerank", API_OTHER },
	{ "/v2/rerank", API_OTHER },
	{ "/rerank", API_OTHER },
	{ "/v1/score", API_OTHER },
	{ "/score", API_OTHER },
	{ "/v1/audio/transcriptions", API_OTHER },
	{ "/v1/audio/translations", API_OTHER },
	{ "/v1/audio/speech", API_OTHER },
	{ "/v1/images/generations", API_OTHER },
	{ "/v1/completions/render", API_OTHER },
	{ "/v1/chat/completions/render", API_OTHER },
	{ "/tokenize", API_OTHER },
	{ "/detokenize", API_OTHER },
	{ "/pooling", API_OTHER },
	{ "/classify", API_OTHER },
	{ "/invocations", API_OTHER },
	{ "/generate", API_OTHER },
	{ "/inference/v1/generate", API_OTHER },
};

#define NAPIS (sizeof(apis) / sizeof(apis[0]))

enum api_kind api_kind_of(const char *path)
{
	for (size_t i = 0; i < NAPIS; i++)
		if (strcmp(apis[i].path, path) == 0)
			return apis[i].kind;
	return API_OTHER;
}

bool api_path_allowed(const struct config_listener *ls, const char *path)
{
	for (size_t i = 0; i < NAPIS; i++)
		if (strcmp(apis[i].path, path) == 0)
			return true;
	for (unsigned i = 0; i < ls->nallow; i++)
		if (strcmp(ls->allow[i], path) == 0)
			return true;
	return strncmp(path, "/v1/responses/", 14) == 0;
}
