package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
)

// Runs CoreDNS with the plugins of a cluster's DNS that need no other server.
func dns() int {
	dnsserver.Directives = []string{
		"reload", "errors", "health", "ready", "cache", "loop", "kubernetes",
	}
	coremain.Run()
	return 0
}
