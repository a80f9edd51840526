/* SPDX-License-Identifier: Apache-2.0
 *
 * What each version of vLLM does to a request before its template sees it, as far as it differs. Read in the sources of
 * one release of every minor version from 0.18 to 0.33; 0.32 was also asked itself (selftests/data/templates/apis.json,
 * selftests/real). Transformers differ too: 5.24 drops members that are null; vLLM 0.33 wants an older one.
 */
#include <stdio.h>
#include <string.h>

#include "model/chat.h"

#define OLDEST 18
#define NEWEST 33

static const struct {
	uint8_t since; /* minor version of 0.x */
	uint32_t rules;
} table[] = {
	{ 20, CHAT_RULE_TOOL_TEXT },
	{ 21, CHAT_RULE_REFERENCE },
	{ 22, CHAT_RULE_EFFORT | CHAT_RULE_BY_NAME },
	{ 23, CHAT_RULE_DEVELOPER },
	{ 24, CHAT_RULE_MESSAGES },
	{ 26, CHAT_RULE_PART_EXTRAS },
	{ 27, CHAT_RULE_RESPONSES | CHAT_RULE_SALT },
	{ 29, CHAT_RULE_ARGUMENTS },
	{ 30, CHAT_RULE_BY_MACRO },
	{ 31, CHAT_RULE_NO_THINKING | CHAT_RULE_PROBING },
	{ 32, CHAT_RULE_CUSTOM },
};
#define ALIASES_SINCE 33

uint32_t chat_rules_lacking(const char *version, char *why, size_t why_len)
{
	bool dev = strstr(version, "dev");
	unsigned major, minor;
	uint32_t lacking = 0;

	if (sscanf(version, "%u.%u", &major, &minor) != 2) {
		snprintf(why, why_len, version[0] ? "%.31s is no version" : "the version is not known", version);
		return CHAT_RULES_UNKNOWN;
	}
	/* What is called a development version of the newest may be ahead of it already. */
	if (major != 0 || minor < OLDEST || minor > NEWEST || (dev && minor == NEWEST)) {
		snprintf(why, why_len, "what vLLM %.31s does to a chat is not known, only that of 0.%u to 0.%u",
			 version, OLDEST, NEWEST);
		return CHAT_RULES_UNKNOWN;
	}
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (minor < table[i].since)
			lacking |= table[i].rules;
	return minor + dev >= ALIASES_SINCE ? lacking | CHAT_RULE_NO_ALIASES : lacking;
}
