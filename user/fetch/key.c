/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <unistd.h>

#include "base/time.h"
#include "fetch/fetch.h"

#define KEY_INTERVAL (10 * NS_PER_S)

const char *fetch_key(struct fetch_key *k, uint64_t now_ns)
{
	ssize_t n;
	int fd;

	if (!k->file)
		return NULL;
	if (k->read_ns && now_ns - k->read_ns < KEY_INTERVAL)
		return k->text[0] ? k->text : NULL;
	k->read_ns = now_ns;
	fd = open(k->file, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, k->text, sizeof(k->text) - 1);
	if (fd >= 0)
		close(fd);
	k->text[n > 0 ? n : 0] = '\0';
	k->text[strcspn(k->text, "\r\n")] = '\0';
	return k->text[0] ? k->text : NULL;
}
