package main

import (
	"bytes"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// bomb makes few blocks that say much: trees that nobody can walk to the end, yet each block of them is well formed.
func (n *node) bomb(form string) (cid.Cid, error) {
	switch form {
	case "wide": // one directory as large as a block can be, of directories
		return n.directoryOf(40000, must(n.keep(folder())).Cid())
	case "deep": // one in the other
		at := must(n.keep(folder())).Cid()
		for range 3000 {
			at = must(n.directoryOf(1, at))
		}
		return at, nil
	case "repeated": // 1000 times the same directory, in which there is 1000 times the same, and so on
		at := must(n.keep(folder())).Cid()
		for range 12 {
			at = must(n.directoryOf(1000, at))
		}
		return at, nil
	case "files": // the same, with a file in the last
		at := must(n.directoryOf(1000, must(n.keep(merkledag.NewRawNode(random(100)))).Cid()))
		for range 3 {
			at = must(n.directoryOf(1000, at))
		}
		return at, nil
	case "hamt": // each of its 256 shards is the same, seven levels down
		at := must(n.shardOf(0, cid.Undef))
		for range 7 {
			at = must(n.shardOf(256, at))
		}
		return at, nil
	case "file": // of 174^6 times the same leaf
		at := must(n.keep(merkledag.NewRawNode(random(1000)))).Cid()
		size := uint64(1000)
		for range 6 {
			data := unixfs.NewFSNode(unixfs.TFile)
			node := merkledag.NodeWithData(nil)
			for range 174 {
				data.AddBlockSize(size)
				must(0, node.AddRawLink("", &ipld.Link{Cid: at, Size: size}))
			}
			size *= 174
			node.SetData(must(data.GetBytes()))
			at = must(n.keepAs1(node)).Cid()
		}
		return n.directoryOf(1000, at)
	}
	return cid.Undef, fmt.Errorf("no bomb of the form %q", form)
}

func folder() *merkledag.ProtoNode { return merkledag.NodeWithData(unixfs.FolderPBData()) }

func (n *node) directoryOf(width int, child cid.Cid) (cid.Cid, error) {
	d := folder()
	for i := range width {
		must(0, d.AddRawLink(fmt.Sprintf("%06d", i), &ipld.Link{Cid: child}))
	}
	nd, err := n.keepAs1(d)
	return nd.Cid(), err
}

func (n *node) shardOf(width int, child cid.Cid) (cid.Cid, error) {
	d := merkledag.NodeWithData(must(unixfs.HAMTShardData(bytes.Repeat([]byte{0xff}, width/8), 256, 0x22)))
	for i := range width {
		must(0, d.AddRawLink(fmt.Sprintf("%02X", i), &ipld.Link{Cid: child}))
	}
	nd, err := n.keepAs1(d)
	return nd.Cid(), err
}

func (n *node) keepAs1(nd *merkledag.ProtoNode) (ipld.Node, error) {
	if err := nd.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}); err != nil {
		return nil, err
	}
	return n.keep(nd)
}

func (n *node) keep(nd ipld.Node) (ipld.Node, error) { return nd, n.dag.Add(n.ctx, nd) }
