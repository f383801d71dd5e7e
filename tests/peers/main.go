// A peer for the outer tests, made of the libraries that kubo is made of: boxo, go-libp2p, kad-dht and pubsub. One
// process, one HTTP control port; what it can be asked is in control.go. It has no pins, no garbage collection and no
// MFS, and keeps its blocks in memory unless it is given a directory.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

var (
	apiAddr   = flag.String("api", "127.0.0.1:5001", "HTTP control address")
	listen    = flag.String("listen", "/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1", "comma separated listen multiaddrs")
	repoDir   = flag.String("repo", "", "directory (flatfs blocks + leveldb); empty = in memory")
	useDHT    = flag.Bool("dht", true, "the LAN DHT and the public one, as kubo's Routing.Type=dht")
	usePS     = flag.Bool("pubsub", false, "gossipsub and IPNS over pubsub")
	useMdns   = flag.String("mdns", "off", "off|on|quiet; quiet notes who was found and connects to nobody")
	versions  = flag.String("bitswap", "1.2.0,1.1.0,1.0.0", "versions of bitswap, or wire: no bitswap but what /wire is told to say")
	attack    = flag.String("hostile", "", "attacks the -target peers in this way instead of being a peer; hostile.go has the ways")
	targets   = flag.String("target", "", "comma separated multiaddrs of whom to attack")
	attackers = flag.Int("attackers", 4, "how many attack each target")
	duration  = flag.Duration("for", 20*time.Second, "how long")
	victim    = flag.String("name", "", "the name whose records are forged")
	wanted    = flag.String("layer", "", "the CID of a file that the targets have")
	router    = flag.String("http", "", "URL of an HTTP router, instead of the DHT; blocks come over HTTP where a provider has such an address, as in kubo")
	swarmKey  = flag.String("swarmkey", "", "path of a /key/swarm/psk/1.0.0/ file (TCP only)")
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a 500 in a handler, the end at start
	}
	return v
}

func main() {
	flag.Parse()
	if *attack != "" {
		a := &hostile{layer: must(cid.Decode(*wanted)), name: must(ipns.NameFromString(*victim))}
		for _, target := range strings.Split(*targets, ",") {
			a.targets = append(a.targets, *must(peer.AddrInfoFromString(target)))
		}
		a.run(*attack, *attackers, *duration)
		return
	}
	n := newNode(context.Background())
	n.serve()
	l := must(net.Listen("tcp", *apiAddr))
	_ = json.NewEncoder(os.Stdout).Encode(m{"id": n.h.ID().String(), "addrs": n.h.Addrs()})
	log.Fatal(http.Serve(l, nil))
}
