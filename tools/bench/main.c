/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

int addr_parse(const char *s, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	const char *colon = strrchr(s, ':');
	char host[64], *end;
	long port;

	if (!colon || (size_t)(colon - s) >= sizeof(host))
		return -EINVAL;
	memcpy(host, s, (size_t)(colon - s));
	host[colon - s] = '\0';
	port = strtol(colon + 1, &end, 10);
	if (*end || port <= 0 || port > 65535 || inet_pton(AF_INET, host, &in.sin_addr) != 1)
		return -EINVAL;
	in.sin_port = htons((uint16_t)port);
	memset(ret, 0, sizeof(*ret));
	memcpy(ret, &in, sizeof(in));
	*ret_len = sizeof(in);
	return 0;
}

static int get_main(int argc, char **argv)
{
	struct sockaddr_storage ss;
	struct timeval limit = { .tv_sec = 5 };
	char buf[65536], *body;
	bool in_body = false;
	socklen_t len;
	ssize_t n;
	int fd;

	if (argc != 3 || addr_parse(argv[1], &ss, &len)) {
		fprintf(stderr, "usage: kvbench get ADDR:PORT PATH\n");
		return 2;
	}
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0)
		return 1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&ss, len)) {
		fprintf(stderr, "kvbench: connect %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	dprintf(fd, "GET %s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n", argv[2], argv[1]);
	while ((n = read(fd, buf, sizeof(buf) - 1)) > 0) {
		body = buf;
		if (!in_body) {
			buf[n] = '\0';
			body = strstr(buf, "\r\n\r\n");
			if (!body)
				continue;
			body += 4;
			in_body = true;
		}
		fwrite(body, 1, (size_t)(buf + n - body), stdout);
	}
	close(fd);
	return in_body ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*fn)(int argc, char **argv);
	} subs[] = { { "pods", pods_main }, { "load", load_main }, { "loss", loss_main },
		     { "soak", soak_main }, { "wire", wire_main }, { "get", get_main } };

	for (size_t i = 0; argc > 1 && i < sizeof(subs) / sizeof(subs[0]); i++)
		if (!strcmp(argv[1], subs[i].name))
			return subs[i].fn(argc - 1, argv + 1);
	fprintf(stderr, "usage: kvbench pods|load|loss|soak|wire|get ...; tools/bench/run.py drives it\n");
	return 2;
}
