package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/namesys"
	"github.com/ipfs/boxo/path"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	psrouter "github.com/libp2p/go-libp2p-pubsub-router"
	pspb "github.com/libp2p/go-libp2p-pubsub-router/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/protoio"
	mh "github.com/multiformats/go-multihash"
)

type m = map[string]any

// args is a request: q gives a query value, c is the CID in ?arg=.
type args struct {
	ctx  context.Context
	q    func(string) string
	c    cid.Cid
	body io.Reader
}

func handle(pattern string, f func(a args) (any, error)) {
	http.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query().Get
		t, err := strconv.Atoi(q("timeout"))
		if err != nil {
			t = 30
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Duration(t)*time.Second)
		defer cancel()
		a := args{ctx: ctx, q: q, body: r.Body}
		a.c, _ = cid.Decode(q("arg"))
		defer func() {
			if e := recover(); e != nil && e != http.ErrAbortHandler {
				http.Error(w, fmt.Sprint(e), 500)
			} else if e != nil {
				panic(e)
			}
		}()
		switch v := must(f(a)).(type) {
		case []byte:
			_, _ = w.Write(v)
		default:
			_ = json.NewEncoder(w).Encode(v)
		}
	})
}

func (n *node) serve() {
	handle("GET /id", func(args) (any, error) {
		return m{"id": n.h.ID().String(), "addrs": must(peer.AddrInfoToP2pAddrs(host.InfoFromHost(n.h)))}, nil
	})
	handle("POST /connect", func(a args) (any, error) {
		ai := must(peer.AddrInfoFromString(a.q("addr")))
		return m{}, n.h.Connect(a.ctx, *ai)
	})
	handle("GET /peers", func(args) (any, error) {
		out := []string{}
		for _, p := range n.h.Network().Peers() {
			out = append(out, p.String())
		}
		return out, nil
	})
	handle("GET /mdns", func(args) (any, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		return append([]string{}, n.found...), nil
	})
	handle("GET /dht", func(args) (any, error) { return n.dht.LAN.RoutingTable().ListPeers(), nil })

	handle("POST /add", func(a args) (any, error) { // ?path= on this machine, ?form=v0|v1|seed, ?chunk=
		size, _ := strconv.ParseInt(a.q("chunk"), 10, 64)
		nd, err := n.addPath(formOf(a.q("form"), size), a.q("path"))
		if err != nil {
			return nil, err
		}
		return m{"cid": nd.Cid().String()}, nil
	})
	handle("POST /patch", func(a args) (any, error) { // ?arg= becomes ?path= below ?root=
		root := must(n.open(a.ctx, a.q("root")))
		child := must(n.open(a.ctx, a.q("arg")))
		nd, err := n.patch(root, strings.Split(a.q("path"), "/"), child)
		if err != nil {
			return nil, err
		}
		return m{"cid": nd.Cid().String()}, nil
	})
	handle("POST /car", func(a args) (any, error) {
		count, err := n.importCar(a.body)
		return m{"blocks": count}, err
	})
	handle("POST /block", func(a args) (any, error) { // a raw one, of any size; those who wait for it are told
		data := must(io.ReadAll(a.body))
		c := cid.NewCidV1(cid.Raw, must(mh.Sum(data, mh.SHA2_256, -1)))
		b := must(blocks.NewBlockWithCid(data, c))
		if err := n.bstr.Put(a.ctx, b); err != nil {
			return nil, err
		}
		if n.bsw != nil {
			return m{"cid": c.String()}, n.bsw.NotifyNewBlocks(a.ctx, b)
		}
		return m{"cid": c.String()}, nil
	})
	handle("POST /bomb", func(a args) (any, error) { // ?form=wide|deep|repeated|files|hamt|file
		c, err := n.bomb(a.q("form"))
		return m{"cid": c.String()}, err
	})
	handle("GET /block", func(a args) (any, error) { // over the network where it is not here
		if a.q("local") != "" {
			b := must(n.bstr.Get(a.ctx, a.c))
			return b.RawData(), nil
		}
		return must(n.bsw.GetBlock(a.ctx, a.c)).RawData(), nil
	})
	handle("POST /pin", func(a args) (any, error) { // brings the whole DAG here
		return m{}, merkledag.FetchGraph(a.ctx, a.c, n.dag)
	})
	handle("POST /get", func(a args) (any, error) { return m{}, n.get(a.ctx, a.c, a.q("to")) })
	handle("GET /ls", func(a args) (any, error) {
		d, err := uio.NewDirectoryFromNode(n.dag, must(n.open(a.ctx, a.q("arg"))))
		if err != nil {
			return nil, err
		}
		names := []string{} // not unixfile's iterator: it fetches every child, one by one
		return &names, d.ForEachLink(a.ctx, func(l *ipld.Link) error { names = append(names, l.Name); return nil })
	})
	handle("GET /stat", func(args) (any, error) { return n.bsw.Stat() })

	handle("POST /provide", func(a args) (any, error) { return m{}, n.dht.Provide(a.ctx, a.c, true) })
	handle("GET /findprovs", func(a args) (any, error) {
		out := []string{}
		for ai := range n.content.FindProvidersAsync(a.ctx, a.c, 20) {
			for _, addr := range ai.Addrs {
				out = append(out, fmt.Sprintf("%s/p2p/%s", addr, ai.ID))
			}
		}
		return out, nil
	})
	handle("POST /name/publish", func(a args) (any, error) { // ?key= is made if it is not there
		k := n.key(a.q("key"))
		id := must(peer.IDFromPrivateKey(k))
		p := must(path.NewPath("/ipfs/" + a.q("arg")))
		return m{"name": ipns.NameFromPeer(id).String()}, n.ns.Publish(a.ctx, k, p, namesys.PublishWithEOL(time.Now().Add(24*time.Hour)))
	})
	handle("POST /name/put", func(a args) (any, error) { // a record that somebody else signed
		key := string(must(ipns.NameFromString(a.q("arg"))).RoutingKey())
		return m{}, n.dht.PutValue(a.ctx, key, must(io.ReadAll(a.body)))
	})
	handle("GET /name/resolve", func(a args) (any, error) {
		res := must(n.ns.Resolve(a.ctx, must(path.NewPath("/ipns/"+a.q("arg"))), namesys.ResolveWithDhtTimeout(20*time.Second)))
		return m{"path": res.Path.String()}, nil
	})
	handle("GET /name/fetch", func(a args) (any, error) { // /libp2p/fetch/0.0.1 of ?peer= for the name ?arg=
		return n.fetch(a.ctx, must(peer.Decode(a.q("peer"))), must(ipns.NameFromString(a.q("arg"))))
	})

	handle("POST /wire", func(a args) (any, error) { // ?peer=, ?version=; the body is a message
		var said said
		if err := json.NewDecoder(a.body).Decode(&said); err != nil {
			return nil, err
		}
		return m{}, n.wire.send(a.ctx, must(peer.Decode(a.q("peer"))), a.q("version"), said)
	})
	handle("GET /wire", func(args) (any, error) { return n.wire.heard(), nil })
}

func (n *node) fetch(ctx context.Context, from peer.ID, name ipns.Name) (any, error) {
	data, err := n.fetchRecord(ctx, from, name)
	if err != nil {
		return nil, err
	}
	rec := must(ipns.UnmarshalRecord(data))
	if err := ipns.ValidateWithName(rec, name); err != nil {
		return nil, err
	}
	return m{"path": must(rec.Value()).String(), "sequence": must(rec.Sequence())}, nil
}

// fetchRecord gives what the peer has, unchecked.
func (n *node) fetchRecord(ctx context.Context, from peer.ID, name ipns.Name) ([]byte, error) {
	s, err := n.h.NewStream(ctx, from, psrouter.FetchProtoID)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := protoio.NewDelimitedWriter(s).WriteMsg(&pspb.FetchRequest{Identifier: string(name.RoutingKey())}); err != nil {
		return nil, err
	}
	_ = s.CloseWrite()
	var r pspb.FetchResponse
	if err := protoio.NewDelimitedReader(s, 1<<20).ReadMsg(&r); err != nil {
		return nil, err
	}
	if r.Status != pspb.FetchResponse_OK {
		return nil, errors.New(r.Status.String())
	}
	return r.Data, nil
}
