/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster-config/local.c - agents that `unum` starts itself; see local.h.
 *
 * Owns      The agent processes.
 * I/O       Sockets, child processes; cc_local_stop waits for them.
 */
#include "cluster-config/local.h"

#include "base/log.h"
#include "cluster-config/files.h"

#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STOP_MS 1500 /* then SIGKILL, which takes its slices too */

int cc_listen(const char *address, uint16_t port, int *out)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE }, *found;
	char service[8];
	int fd, one = 1, err = 0;

	snprintf(service, sizeof(service), "%u", port);
	if (getaddrinfo(address, service, &hints, &found))
		return -EADDRNOTAVAIL;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		err = -errno;
	else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
		 bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 64))
		err = -errno;
	freeaddrinfo(found);
	if (err) {
		if (fd >= 0)
			close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len))
		return 0;
	return ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
					     : ((struct sockaddr_in *)&a)->sin_port);
}

static int sockets_open(struct cc_topology *t, const struct cc_vm *vm, int *fd)
{
	int bad = 0;

	for (unsigned i = 0; i < vm->shares; i++) {
		struct cc_node *n = &t->node[vm->share[i].node];
		int err = cc_address_is_loopback(n->address)
				  ? cc_listen(n->address, n->port, &fd[i])
				  : -EXDEV;

		if (!err) {
			n->port = port_of(fd[i]);
			continue;
		}
		bad++;
		fd[i] = -1;
		fprintf(stderr, "%s:%u:%u: error: node '%s' (%s, port %u): %s\n", t->file,
			n->mark.line, n->mark.col, n->name, n->address, n->port,
			err == -EXDEV ? "only agents on loopback addresses can be started from here"
				      : strerror(-err));
	}
	if (!bad)
		return 0;
	for (unsigned i = 0; i < vm->shares; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return -EINVAL;
}

/* The key fits into a pipe's buffer, so nobody need read while it is written. */
static int key_pipe(const struct cc_key *key, int *out)
{
	char hex[CC_KEY_HEX + 2];
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		return -errno;
	cc_key_hex(key, hex);
	if (write(fd[1], hex, CC_KEY_HEX + 1) != CC_KEY_HEX + 1) {
		close(fd[0]);
		close(fd[1]);
		return -EIO;
	}
	close(fd[1]);
	*out = fd[0];
	return 0;
}

static int agent_spawn(const struct cc_node *node, const struct cc_key *key, const char *slice_path,
		       int listen_fd, struct cc_child *out)
{
	char path[PATH_MAX], cpus[16], memory[32];
	char *argv[16] = { path,     "--listen",         "fd:3",   "--key", "fd:4",
			   "--name", (char *)node->name, "--cpus", cpus,    "--memory",
			   memory };
	int fds[2] = { listen_fd, -1 }, err;

	snprintf(cpus, sizeof(cpus), "%u", node->cpus);
	snprintf(memory, sizeof(memory), "%lluKiB", (unsigned long long)node->memory >> 10);
	if (slice_path) {
		argv[11] = "--slice";
		argv[12] = (char *)slice_path;
	}
	err = cc_program_path("unumd", path, sizeof(path));
	if (!err)
		err = key_pipe(key, &fds[1]);
	if (err)
		return err;
	err = cc_spawn(argv, fds, 2, out);
	close(fds[1]);
	return err;
}

int cc_local_start(struct cc_topology *t, const struct cc_vm *vm, const struct cc_key *key,
		   const char *slice_path, struct cc_local_agents *out)
{
	int fd[NODES_MAX], err = sockets_open(t, vm, fd);

	out->count = 0;
	if (err)
		return err;
	for (unsigned i = 0; i < vm->shares; i++) {
		const struct cc_node *node = &t->node[vm->share[i].node];

		if (!err)
			err = agent_spawn(node, key, slice_path, fd[i], &out->child[i]);
		if (!err)
			out->count++;
		else
			fprintf(stderr, "unum: the agent of node '%s' cannot be started: %s\n",
				node->name, strerror(-err));
		close(fd[i]);
	}
	if (err)
		cc_local_stop(out);
	return err;
}

void cc_local_stop(struct cc_local_agents *l)
{
	char how[CC_EXIT_TEXT_MAX];

	for (unsigned i = 0; i < l->count; i++)
		cc_child_signal(&l->child[i], SIGTERM);
	for (unsigned i = 0; i < l->count; i++) {
		if (!cc_child_reap(&l->child[i], STOP_MS, how))
			continue;
		log_error("unum: agent pid %d does not end, killed", l->child[i].pid);
		cc_child_signal(&l->child[i], SIGKILL);
		if (cc_child_reap(&l->child[i], STOP_MS, how))
			log_error("unum: agent pid %d cannot be killed", l->child[i].pid);
	}
	l->count = 0;
}
