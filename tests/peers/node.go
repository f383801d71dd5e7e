package main

import (
	"context"
	"crypto/rand"
	"log"
	mathrand "math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/network/httpnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/keystore"
	"github.com/ipfs/boxo/namesys"
	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/contentrouter"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/mount"
	dssync "github.com/ipfs/go-datastore/sync"
	flatfs "github.com/ipfs/go-ds-flatfs"
	leveldb "github.com/ipfs/go-ds-leveldb"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/dual"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	psrouter "github.com/libp2p/go-libp2p-pubsub-router"
	record "github.com/libp2p/go-libp2p-record"
	rhelpers "github.com/libp2p/go-libp2p-routing-helpers"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/libp2p/go-libp2p/p2p/discovery/backoff"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	disc "github.com/libp2p/go-libp2p/p2p/discovery/routing"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

type node struct {
	ctx  context.Context
	h    host.Host
	priv crypto.PrivKey
	keys keystore.Keystore
	bstr blockstore.Blockstore
	bsw  *bitswap.Bitswap // nil with -bitswap wire
	dag  ipld.DAGService
	dht  *dual.DHT
	// Who has what: the DHT, or an HTTP router.
	content routing.ContentRouting
	psvs    *psrouter.PubsubValueStore
	val     record.Validator
	ns      namesys.NameSystem
	wire    *wire

	mu    sync.Mutex
	found []string // by mDNS
}

func newNode(ctx context.Context) *node {
	n := &node{ctx: ctx, keys: keystore.NewMemKeystore()}
	n.priv, _, _ = crypto.GenerateEd25519Key(rand.Reader)
	var ds datastore.Batching = dssync.MutexWrap(datastore.NewMapDatastore())
	if *repoDir != "" {
		if err := os.MkdirAll(*repoDir, 0o755); err != nil {
			panic(err)
		}
		blk := must(flatfs.CreateOrOpen(must(filepath.Abs(filepath.Join(*repoDir, "blocks"))), flatfs.NextToLast(2), false))
		ldb := must(leveldb.NewDatastore(filepath.Join(*repoDir, "datastore"), nil))
		ds = mount.New([]mount.Mount{{Prefix: blockstore.BlockPrefix, Datastore: blk}, {Prefix: datastore.NewKey("/"), Datastore: ldb}})
	}
	opts := []libp2p.Option{libp2p.Identity(n.priv), libp2p.ListenAddrStrings(strings.Split(*listen, ",")...), libp2p.UserAgent("gopeer/1"), libp2p.DisableRelay()}
	if *swarmKey != "" {
		psk := must(pnet.DecodeV1PSK(must(os.Open(*swarmKey))))
		opts = append(opts, libp2p.PrivateNetwork(psk), libp2p.Transport(tcp.NewTCPTransport))
	}
	n.h = must(libp2p.New(opts...))
	n.val = record.NamespacedValidator{"pk": record.PublicKeyValidator{}, "ipns": ipns.Validator{KeyBook: n.h.Peerstore()}}

	var routers []*rhelpers.ParallelRouter
	add := func(r routing.Routing) {
		routers = append(routers, &rhelpers.ParallelRouter{IgnoreError: true, DoNotWaitForSearchValue: true, Router: r})
	}
	var content routing.ContentRouting = rhelpers.Null{}
	if *router != "" {
		http := contentrouter.NewContentRoutingClient(must(client.New(*router, client.WithStreamResultsRequired())))
		content = http
		add(&rhelpers.Compose{ValueStore: http, PeerRouting: http, ContentRouting: http})
	} else if *useDHT {
		n.dht = must(dual.New(n.h, dual.DHTOption(dht.Concurrency(10), dht.Datastore(ds), dht.Validator(n.val)), dual.WanDHTOption(dht.BootstrapPeers())))
		content = n.dht
		add(n.dht)
		go func() { _ = n.dht.Bootstrap(ctx) }()
	}
	if *usePS {
		d := must(backoff.NewBackoffDiscovery(disc.NewRoutingDiscovery(content),
			backoff.NewExponentialBackoff(time.Minute, time.Hour, backoff.FullJitter, time.Second, 5.0, 0, mathrand.New(mathrand.NewSource(1)))))
		ps := must(pubsub.NewGossipSub(ctx, n.h, pubsub.WithDiscovery(d), pubsub.WithFloodPublish(true)))
		n.psvs = must(psrouter.NewPubsubValueStore(ctx, n.h, ps, n.val, psrouter.WithRebroadcastInterval(time.Minute)))
		add(&rhelpers.Compose{ValueStore: &rhelpers.LimitedValueStore{ValueStore: n.psvs, Namespaces: []string{"ipns"}}})
	}
	n.ns = must(namesys.NewNameSystem(rhelpers.NewComposableParallel(routers), namesys.WithDatastore(ds)))

	n.bstr = blockstore.NewIdStore(blockstore.NewBlockstore(ds))
	if *versions == "wire" {
		n.wire = newWire(n)
		n.dag = merkledag.NewDAGService(blockservice.New(n.bstr, offline.Exchange(n.bstr)))
	} else {
		var protocols []protocol.ID
		for _, version := range strings.Split(*versions, ",") {
			protocols = append(protocols, protocol.ID("/ipfs/bitswap/"+version))
		}
		exchange := bsnet.NewFromIpfsHost(n.h, bsnet.SupportedProtocols(protocols))
		if *router != "" {
			exchange = network.New(n.h.Peerstore(), exchange, httpnet.New(n.h))
		}
		n.content = content
		n.bsw = bitswap.New(ctx, exchange, content, n.bstr)
		n.dag = merkledag.NewDAGService(blockservice.New(n.bstr, n.bsw))
	}
	if *useMdns != "off" {
		if err := mdns.NewMdnsService(n.h, mdns.ServiceName, n).Start(); err != nil {
			log.Print("mdns: ", err)
		}
	}
	return n
}

// HandlePeerFound is called by mDNS.
func (n *node) HandlePeerFound(p peer.AddrInfo) {
	n.mu.Lock()
	n.found = append(n.found, p.ID.String())
	n.mu.Unlock()
	if *useMdns == "on" {
		ctx, cancel := context.WithTimeout(n.ctx, 30*time.Second)
		defer cancel()
		log.Printf("mdns found %s: connect err=%v", p, n.h.Connect(ctx, p))
	}
}

func (n *node) key(name string) crypto.PrivKey {
	if name == "" || name == "self" {
		return n.priv
	}
	if k, err := n.keys.Get(name); err == nil {
		return k
	}
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	must(k, err)
	if err := n.keys.Put(name, k); err != nil {
		panic(err)
	}
	return k
}
