package main

import (
	"context"
	"io"
	"sync"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
)

// wire speaks bitswap word by word: it sends what it is told to, and notes what comes.
type wire struct {
	n        *node
	mu       sync.Mutex
	streams  map[string]network.Stream // to a peer in a version
	received []heard
}

type heard struct {
	Version   string   `json:"version"`
	Blocks    []string `json:"blocks"`
	Haves     []string `json:"haves"`
	DontHaves []string `json:"dontHaves"`
	Wants     []string `json:"wants"`
	Cancels   []string `json:"cancels"`
	Full      bool     `json:"full"`
}

// said is one message: what is wanted, as a block or as a HAVE, and what no longer.
type said struct {
	Full    bool     `json:"full"`
	Blocks  []string `json:"blocks"`
	Haves   []string `json:"haves"`
	Cancels []string `json:"cancels"`
	// Whether the peer is asked to say what it has not.
	DontHave bool `json:"dontHave"`
}

func newWire(n *node) *wire {
	w := &wire{n: n, streams: map[string]network.Stream{}}
	for _, version := range []string{"1.2.0", "1.1.0", "1.0.0"} {
		n.h.SetStreamHandler(protocol.ID("/ipfs/bitswap/"+version), func(s network.Stream) { w.listen(version, s) })
	}
	return w
}

func (w *wire) listen(version string, s network.Stream) {
	defer s.Close()
	reader := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
	for {
		msg, _, err := bsmsg.FromMsgReader(reader)
		if err != nil {
			if err != io.EOF {
				_ = s.Reset()
			}
			return
		}
		h := heard{Version: version, Full: msg.Full(), Haves: names(msg.Haves()), DontHaves: names(msg.DontHaves())}
		for _, b := range msg.Blocks() {
			h.Blocks = append(h.Blocks, b.Cid().String())
		}
		for _, e := range msg.Wantlist() {
			if e.Cancel {
				h.Cancels = append(h.Cancels, e.Cid.String())
			} else {
				h.Wants = append(h.Wants, e.Cid.String())
			}
		}
		w.mu.Lock()
		w.received = append(w.received, h)
		w.mu.Unlock()
	}
}

func (w *wire) send(ctx context.Context, to peer.ID, version string, said said) error {
	msg := bsmsg.New(said.Full)
	add := func(kind pb.Message_Wantlist_WantType, wanted []string) {
		for i, c := range wanted {
			msg.AddEntry(must(cid.Decode(c)), int32(len(wanted)-i), kind, said.DontHave)
		}
	}
	add(pb.Message_Wantlist_Block, said.Blocks)
	add(pb.Message_Wantlist_Have, said.Haves)
	for _, c := range said.Cancels {
		msg.Cancel(must(cid.Decode(c)))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := to.String() + version
	if w.streams[key] == nil {
		w.streams[key] = must(w.n.h.NewStream(ctx, to, protocol.ID("/ipfs/bitswap/"+version)))
	}
	if version == "1.0.0" {
		return msg.ToNetV0(w.streams[key])
	}
	return msg.ToNetV1(w.streams[key])
}

func (w *wire) heard() []heard {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]heard{}, w.received...)
}

func names(cids []cid.Cid) (out []string) {
	for _, c := range cids {
		out = append(out, c.String())
	}
	return out
}
