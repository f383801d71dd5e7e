package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/path"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	dhtpb "github.com/libp2p/go-libp2p-kad-dht/pb"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	psrouter "github.com/libp2p/go-libp2p-pubsub-router"
	recpb "github.com/libp2p/go-libp2p-record/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"
	"github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/proto"
)

// hostile is a peer that means no good, as many of them as are wanted, each with a key of its own. Every attack runs
// against every target until the time is over; what a target does about it is counted.
type hostile struct {
	targets []peer.AddrInfo
	name    ipns.Name // whose records are forged and replayed
	layer   cid.Cid   // what is asked for and not read
	seen    tally
}

// tally is what the attackers noticed.
type tally struct {
	Sent        atomic.Int64 // messages
	Bytes       atomic.Int64
	Reset       atomic.Int64 // streams that the target ended
	Cut         atomic.Int64 // connections that the target ended
	TurnedAway  atomic.Int64 // connections that it did not take any more
	Connections atomic.Int64
}

const (
	bitswapID = protocol.ID("/ipfs/bitswap/1.2.0")
	lanKadID  = protocol.ID("/ipfs/lan/kad/1.0.0")
	gossipID  = protocol.ID("/meshsub/1.1.0")
	followID  = protocol.ID("/sampan/follow/1.0.0")
	lifeless  = 15 * time.Second // a stream on which nothing moves
)

var mebibyte = random(1 << 20)

// An attack goes on until its stream or its connection ends, or the context. It is begun again then.
var attacks = map[string]func(*hostile, context.Context, host.Host, peer.ID) error{
	"varints":  (*hostile).varints,
	"oversize": (*hostile).oversize,
	"halves":   (*hostile).halves,
	"garbage":  (*hostile).garbage,
	"wants":    (*hostile).wants,
	"lists":    (*hostile).lists,
	"cids":     (*hostile).cids,
	"unasked":  (*hostile).unasked,
	"large":    (*hostile).large,
	"wrong":    (*hostile).wrong,
	"streams":  (*hostile).streams,
	"slow":     (*hostile).slow,
	"records":  (*hostile).records,
	"updates":  (*hostile).updates,
	"gossip":   (*hostile).gossip,
	"topics":   (*hostile).topics,
	"kad":      (*hostile).kad,
	"finds":    (*hostile).finds,
}

// run attacks in these ways, one or several with commas, for so long with so many peers, and prints what was noticed.
func (a *hostile) run(kind string, peers int, duration time.Duration) {
	kinds := strings.Split(kind, ",")
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	for i := range max(peers, len(kinds)) {
		attack, known := attacks[kinds[i%len(kinds)]]
		if !known {
			panic("no attack of the name " + kind)
		}
		for _, target := range a.targets {
			go a.keepOn(ctx, target, attack)
		}
	}
	fmt.Println("up")
	<-ctx.Done()
	s := &a.seen
	_ = json.NewEncoder(os.Stdout).Encode(m{"kind": kind, "sent": s.Sent.Load(), "mebibytes": s.Bytes.Load() >> 20, "reset": s.Reset.Load(),
		"cut": s.Cut.Load(), "turnedAway": s.TurnedAway.Load(), "connections": s.Connections.Load()})
}

// keepOn is one peer: its streams are opened again when they end, and so are its connections.
func (a *hostile) keepOn(ctx context.Context, target peer.AddrInfo, attack func(*hostile, context.Context, host.Host, peer.ID) error) {
	h := must(libp2p.New(libp2p.NoListenAddrs, libp2p.DisableRelay(), libp2p.UserAgent("hostile"), libp2p.ResourceManager(&network.NullResourceManager{})))
	defer h.Close()
	h.Network().Notify(&network.NotifyBundle{DisconnectedF: func(network.Network, network.Conn) {
		if ctx.Err() == nil {
			a.seen.Cut.Add(1)
		}
	}})
	for ctx.Err() == nil {
		if h.Network().Connectedness(target.ID) != network.Connected {
			if err := h.Connect(ctx, target); err != nil {
				a.seen.TurnedAway.Add(1)
				pause(ctx, time.Second)
				continue
			}
			a.seen.Connections.Add(1)
		}
		err := attack(a, ctx, h, target.ID)
		if err != nil && ctx.Err() == nil {
			a.seen.Reset.Add(1)
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// ---- bitswap, byte by byte

func (a *hostile) stream(ctx context.Context, h host.Host, to peer.ID, id protocol.ID) (network.Stream, error) {
	s, err := h.NewStream(ctx, to, id)
	if err == nil {
		context.AfterFunc(ctx, func() { _ = s.Reset() })
	}
	return s, err
}

// say writes it, and then again as long as the stream stands.
func (a *hostile) say(ctx context.Context, h host.Host, to peer.ID, id protocol.ID, next func() []byte) error {
	s, err := a.stream(ctx, h, to, id)
	if err != nil {
		return err
	}
	defer s.Reset()
	for ctx.Err() == nil {
		if err := a.put(s, next()); err != nil {
			return err
		}
	}
	return nil
}

func (a *hostile) put(s network.Stream, data []byte) error {
	_ = s.SetWriteDeadline(time.Now().Add(lifeless))
	n, err := s.Write(data)
	a.seen.Sent.Add(1)
	a.seen.Bytes.Add(int64(n))
	return err
}

// A length of more than ten bytes.
func (a *hostile) varints(ctx context.Context, h host.Host, to peer.ID) error {
	return a.say(ctx, h, to, bitswapID, func() []byte { return bytes.Repeat([]byte{0xff}, 64) })
}

// A frame of a byte more than may be, then one that claims a gigabyte.
func (a *hostile) oversize(ctx context.Context, h host.Host, to peer.ID) error {
	length := uint64(4<<20 + 1)
	return a.say(ctx, h, to, bitswapID, func() []byte {
		head := binary.AppendUvarint(nil, length)
		length = 1 << 30
		return append(head, mebibyte...)
	})
}

// Frames of which all but the last byte comes, on many streams at once.
func (a *hostile) halves(ctx context.Context, h host.Host, to peer.ID) error {
	ended := make(chan error, 64)
	for range cap(ended) {
		go func() {
			s, err := a.stream(ctx, h, to, bitswapID)
			if err == nil {
				frame := append(binary.AppendUvarint(nil, 4<<20), 3<<3|2)
				frame = append(frame, bytes.Repeat(mebibyte, 4)[:4<<20-2]...)
				_, err = s.Write(frame)
				a.seen.Sent.Add(1)
				a.seen.Bytes.Add(int64(len(frame)))
				if err == nil {
					_, err = s.Read(make([]byte, 1)) // until the target ends it
				}
			}
			ended <- err
		}()
	}
	var err error
	for range cap(ended) {
		err = errors.Join(err, <-ended)
	}
	return err
}

// Frames that are no protobuf.
func (a *hostile) garbage(ctx context.Context, h host.Host, to peer.ID) error {
	return a.say(ctx, h, to, bitswapID, func() []byte { return frame(random(4000)) })
}

// ---- wantlists

func (a *hostile) wants(ctx context.Context, h host.Host, to peer.ID) error {
	return a.say(ctx, h, to, bitswapID, func() []byte {
		msg := bsmsg.New(false)
		for i := range 2000 {
			kind := pb.Message_Wantlist_Have
			if i%2 == 0 {
				kind = pb.Message_Wantlist_Block
			}
			msg.AddEntry(randomCid(), int32(i), kind, true)
		}
		return toFrame(msg)
	})
}

// Lists as long as a frame can be: 90,000 entries, and 1,000,000 that say nothing.
func (a *hostile) lists(ctx context.Context, h host.Host, to peer.ID) error {
	entry := wantEntry(randomCid().Bytes())
	full := frame(field(1, bytes.Repeat(entry, (4<<20-16)/len(entry))))
	empty := frame(field(1, bytes.Repeat([]byte{1<<3 | 2, 0}, 2<<20-16)))
	turn := 0
	return a.say(ctx, h, to, bitswapID, func() []byte {
		if turn++; turn%2 == 0 {
			return empty
		}
		return full
	})
}

// CIDs that name nothing: of the bytes themselves, too long, cut off, no CIDs.
func (a *hostile) cids(ctx context.Context, h host.Host, to peer.ID) error {
	inline := cid.NewCidV1(cid.Raw, must(mh.Sum(random(100), mh.IDENTITY, -1))).Bytes()
	long := cid.NewCidV1(cid.Raw, must(mh.Sum(random(100000), mh.IDENTITY, -1))).Bytes()
	var list []byte
	for range 100 {
		for _, c := range [][]byte{inline, long[:10000], randomCid().Bytes()[:20], random(36), {}} {
			list = append(list, wantEntry(c)...)
		}
	}
	message := frame(field(1, list))
	return a.say(ctx, h, to, bitswapID, func() []byte { return message })
}

// ---- blocks

func (a *hostile) unasked(ctx context.Context, h host.Host, to peer.ID) error {
	block := field(3, append(field(1, []byte{1, 0x55, 0x12, 0x20}), field(2, mebibyte)...))
	message := frame(bytes.Repeat(block, 3))
	return a.say(ctx, h, to, bitswapID, func() []byte { return message })
}

func (a *hostile) large(ctx context.Context, h host.Host, to peer.ID) error {
	block := field(3, append(field(1, []byte{1, 0x55, 0x12, 0x20}), field(2, bytes.Repeat(mebibyte, 3))...))
	message := frame(block)
	return a.say(ctx, h, to, bitswapID, func() []byte { return message })
}

// It says that it has whatever it is asked for, and gives other bytes.
func (a *hostile) wrong(ctx context.Context, h host.Host, to peer.ID) error {
	ended := make(chan error, 256)
	h.SetStreamHandler(bitswapID, func(s network.Stream) {
		reader := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		out, err := a.stream(ctx, h, to, bitswapID)
		for err == nil {
			var msg bsmsg.BitSwapMessage
			if msg, _, err = bsmsg.FromMsgReader(reader); err != nil {
				break
			}
			for _, e := range msg.Wantlist() {
				answer := bsmsg.New(false)
				if e.WantType == pb.Message_Wantlist_Have {
					answer.AddHave(e.Cid)
				} else if !e.Cancel {
					other := random(1<<20 - 8)
					answer.AddBlock(must(blocks.NewBlockWithCid(other, must(e.Cid.Prefix().Sum(other)))))
				}
				if err = a.put(out, toFrame(answer)); err != nil {
					break
				}
			}
		}
		ended <- err
	})
	// A message that says nothing makes it known that this peer speaks bitswap.
	if err := a.greet(ctx, h, to); err != nil {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	case <-time.After(lifeless):
		return nil
	}
}

func (a *hostile) greet(ctx context.Context, h host.Host, to peer.ID) error {
	s, err := a.stream(ctx, h, to, bitswapID)
	if err != nil {
		return err
	}
	return a.put(s, toFrame(bsmsg.New(true)))
}

// ---- streams

// As many streams as there can be, of which each says the first byte of a frame.
func (a *hostile) streams(ctx context.Context, h host.Host, to peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, lifeless)
	defer cancel()
	opened := 0
	var err error
	for ctx.Err() == nil && err == nil {
		var s network.Stream
		if s, err = a.stream(ctx, h, to, bitswapID); err == nil {
			err = a.put(s, []byte{0x80})
			opened++
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// It wants a whole layer, again and again, and never reads what comes.
func (a *hostile) slow(ctx context.Context, h host.Host, to peer.ID) error {
	leaves, err := a.leaves(ctx, h, to)
	if err != nil {
		return err
	}
	cut := make(chan error, 1024)
	h.SetStreamHandler(bitswapID, func(s network.Stream) {
		// Read only the end of it, after a time: nothing is taken from the window.
		<-ctx.Done()
		cut <- nil
	})
	msg := bsmsg.New(true)
	for i, leaf := range leaves {
		if i < 1000 {
			msg.AddEntry(leaf, 1, pb.Message_Wantlist_Block, true)
		}
	}
	message := toFrame(msg)
	s, err := a.stream(ctx, h, to, bitswapID)
	for err == nil && ctx.Err() == nil {
		err = a.put(s, message)
		pause(ctx, time.Second)
	}
	return err
}

// leaves asks for the root of the layer as an honest peer does.
func (a *hostile) leaves(ctx context.Context, h host.Host, to peer.ID) ([]cid.Cid, error) {
	came := make(chan blocks.Block, 16)
	h.SetStreamHandler(bitswapID, func(s network.Stream) {
		reader := msgio.NewVarintReaderSize(s, network.MessageSizeMax)
		for {
			msg, _, err := bsmsg.FromMsgReader(reader)
			if err != nil {
				return
			}
			for _, b := range msg.Blocks() {
				came <- b
			}
		}
	})
	msg := bsmsg.New(false)
	msg.AddEntry(a.layer, 1, pb.Message_Wantlist_Block, true)
	s, err := a.stream(ctx, h, to, bitswapID)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := a.put(s, toFrame(msg)); err != nil {
		return nil, err
	}
	select {
	case b := <-came:
		var leaves []cid.Cid
		for _, link := range must(merkledag.DecodeProtobuf(b.RawData())).Links() {
			leaves = append(leaves, link.Cid)
		}
		return leaves, nil
	case <-time.After(lifeless):
		return nil, errors.New("no root of the layer")
	case <-ctx.Done():
		return nil, nil
	}
}

// ---- records

// forged makes records under the name that are not its own: of another key, of a far future, with the highest sequence.
func (a *hostile) forged() [][]byte {
	key, _, _ := crypto.GenerateEd25519Key(rand.Reader)
	value := path.FromCid(randomCid())
	var out [][]byte
	for _, eol := range []time.Time{time.Now().Add(time.Hour), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)} {
		for _, sequence := range []uint64{1, 1 << 40, 1<<63 - 1} {
			record := must(ipns.MarshalRecord(must(ipns.NewRecord(key, value, sequence, eol, time.Hour))))
			out = append(out, record, record[:len(record)/2], append(record, random(20000)...))
		}
	}
	return append(out, random(1000), random(10000), nil)
}

// replayed is what the target itself says about the name.
func (a *hostile) replayed(ctx context.Context, h host.Host, to peer.ID) []byte {
	n := node{h: h}
	record, err := n.fetchRecord(ctx, to, a.name)
	if err != nil {
		return nil
	}
	return record
}

// records: by the DHT, as values to keep.
func (a *hostile) records(ctx context.Context, h host.Host, to peer.ID) error {
	records := append(a.forged(), a.replayed(ctx, h, to))
	key := a.name.RoutingKey()
	turn := 0
	return a.say(ctx, h, to, lanKadID, func() []byte {
		message := dhtpb.NewMessage(dhtpb.Message_PUT_VALUE, key, 0)
		message.Record = &recpb.Record{Key: key, Value: records[turn%len(records)]}
		turn++
		if turn%3 == 0 { // of a name that nobody knows, valid or not
			_, public, _ := crypto.GenerateEd25519Key(rand.Reader)
			key := ipns.NameFromPeer(must(peer.IDFromPublicKey(public))).RoutingKey()
			message.Key, message.Record = key, &recpb.Record{Key: key, Value: random(9000)}
		}
		return toFrameOf(message)
	})
}

// updates: unasked, by the protocol between Sampans, with a megabyte of nodes.
func (a *hostile) updates(ctx context.Context, h host.Host, to peer.ID) error {
	records := append(a.forged(), a.replayed(ctx, h, to))
	streams := make(chan error, 32)
	for i := range cap(streams) {
		go func() {
			var err error
			for turn := i; ctx.Err() == nil && err == nil; turn++ {
				var s network.Stream
				if s, err = a.stream(ctx, h, to, followID); err != nil {
					break
				}
				if err = a.put(s, frame(update(a.name, records[turn%len(records)], mebibyte))); err == nil {
					_ = s.SetReadDeadline(time.Now().Add(lifeless))
					_, err = io.ReadAll(s)
				}
				_ = s.Reset()
			}
			streams <- err
		}()
	}
	var err error
	for range cap(streams) {
		err = errors.Join(err, <-streams)
	}
	return err
}

// update is {"update": {"name", "record", "nodes"}} in CBOR.
func update(name ipns.Name, record, nodes []byte) []byte {
	out := append([]byte{0xa1, 0x66}, "update"...)
	out = append(append(out, 0xa3, 0x64), "name"...)
	text := name.String()
	out = append(append(out, 0x78, byte(len(text))), text...)
	for _, part := range []struct {
		key  string
		data []byte
	}{{"nodes", nodes}, {"record", record}} {
		out = append(append(out, 0x60|byte(len(part.key))), part.key...)
		out = append(binary.BigEndian.AppendUint32(append(out, 0x5a), uint32(len(part.data))), part.data...)
	}
	return out
}

// ---- pubsub

// gossip: garbage, forged and replayed records on the name's topic, and on others, as fast as it goes.
func (a *hostile) gossip(ctx context.Context, h host.Host, to peer.ID) error {
	ps, err := pubsub.NewGossipSub(ctx, h, pubsub.WithFloodPublish(true), pubsub.WithMaxMessageSize(1<<20), pubsub.WithValidateQueueSize(1),
		pubsub.WithPeerOutboundQueueSize(1024))
	if err != nil {
		return err
	}
	messages := append(a.forged(), a.replayed(ctx, h, to), random(60000), random(1000), random(200000))
	topic := must(ps.Join(psrouter.KeyToTopic(string(a.name.RoutingKey()))))
	defer topic.Close()
	other := must(ps.Join("/record/other"))
	defer other.Close()
	pause(ctx, 500*time.Millisecond)
	for ctx.Err() == nil && h.Network().Connectedness(to) == network.Connected {
		for turn, message := range messages {
			to := topic
			if turn%4 == 0 {
				to = other
			}
			_ = to.Publish(ctx, message)
			a.seen.Sent.Add(1)
			a.seen.Bytes.Add(int64(len(message)))
		}
		pause(ctx, time.Millisecond)
	}
	return nil
}

// topics: subscriptions to names without end, each as long as a message may be; and what is no message.
func (a *hostile) topics(ctx context.Context, h host.Host, to peer.ID) error {
	return a.say(ctx, h, to, gossipID, func() []byte {
		subscription := append([]byte{1 << 3, 1}, field(2, random(60000))...)
		return frame(field(1, subscription))
	})
}

// ---- Kademlia

// kad: providers that are not there, for the root, for the layer and for whatever, each with a long list of addresses.
func (a *hostile) kad(ctx context.Context, h host.Host, to peer.ID) error {
	addresses := make([]multiaddr.Multiaddr, 0, 200)
	for i := range cap(addresses) {
		addresses = append(addresses, multiaddr.StringCast("/ip4/10.77."+itoa(i)+".9/tcp/4001"))
	}
	turn := 0
	return a.say(ctx, h, to, lanKadID, func() []byte {
		key := a.layer.Hash()
		if turn++; turn%2 == 0 {
			key = randomCid().Hash()
		}
		message := dhtpb.NewMessage(dhtpb.Message_ADD_PROVIDER, key, 0)
		message.ProviderPeers = dhtpb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: h.ID(), Addrs: addresses}})
		return toFrameOf(message)
	})
}

// finds: questions whose answers are not read.
func (a *hostile) finds(ctx context.Context, h host.Host, to peer.ID) error {
	ended := make(chan error, 64)
	for range cap(ended) {
		go func() {
			ended <- a.say(ctx, h, to, lanKadID, func() []byte {
				return toFrameOf(dhtpb.NewMessage(dhtpb.Message_GET_PROVIDERS, randomCid().Hash(), 0))
			})
		}()
	}
	var err error
	for range cap(ended) {
		err = errors.Join(err, <-ended)
	}
	return err
}

// ---- helpers

func random(size int) []byte {
	data := make([]byte, size)
	must(rand.Read(data))
	return data
}

func randomCid() cid.Cid { return cid.NewCidV1(cid.Raw, must(mh.Sum(random(32), mh.SHA2_256, -1))) }

func frame(message []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
}

func field(number byte, data []byte) []byte {
	return append(binary.AppendUvarint([]byte{number<<3 | 2}, uint64(len(data))), data...)
}

func wantEntry(c []byte) []byte { return field(1, append(field(1, c), 2<<3, 1, 5<<3, 1)) }

func toFrame(msg bsmsg.BitSwapMessage) []byte {
	var out bytes.Buffer
	if err := msg.ToNetV1(&out); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func toFrameOf(message *dhtpb.Message) []byte { return frame(must(proto.Marshal(message))) }

func itoa(i int) string { return string(must(json.Marshal(i))) }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
