package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// Starts an etcd of one member, without certificates: it is for a namespace of its own.
func etcd() int {
	dir := flag.String("data-dir", "", "where its data is")
	address := flag.String("listen", "127.0.0.1:2379", "where clients reach it")
	flag.Parse()
	config := embed.NewConfig()
	config.Dir = *dir
	config.LogLevel = "warn"
	// Nothing of it is to outlive the machine.
	config.UnsafeNoFsync = true
	client := url.URL{Scheme: "http", Host: *address}
	config.ListenClientUrls = []url.URL{client}
	config.AdvertiseClientUrls = []url.URL{client}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	config.ListenPeerUrls = []url.URL{peer}
	config.AdvertisePeerUrls = []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(time.Minute):
		fmt.Fprintln(os.Stderr, "etcd: not ready within a minute")
		return 1
	}
	select {
	case <-stop:
		return 0
	case err := <-server.Err():
		fmt.Fprintln(os.Stderr, "etcd:", err)
		return 1
	}
}
