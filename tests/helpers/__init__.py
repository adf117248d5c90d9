"""What several tests share: small media with known answers, stand-ins for networks, servers of one's own."""
