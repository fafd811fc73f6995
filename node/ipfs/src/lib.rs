//! The embedded IPFS peer and the data swarm
