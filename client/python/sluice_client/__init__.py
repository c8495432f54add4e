"""The client of Sluice for asyncio.

    async with connect("ws://127.0.0.1:8080/ws", token="eyJ…") as client:
        room = client.room("news", after=0)
        await client.publish("news", {"t": "hi"})
        async for message in room:
            print(message.seq, message.data)
"""

from .client import Client, connect
from .room import Room
from .types import (
    Bye, ClientEvent, Closed, Connected, Drain, Ended, Error, Gap, HistoryPage, Joined, Left, Message, Position, PresencePage, PresentUser,
    Reconnecting, RoomEvent, Scheduled, Skipped, SluiceError, Stale, Stored, Subscribed, Token, Unsubscribed,
)

__all__ = [
    "Bye", "Client", "ClientEvent", "Closed", "Connected", "Drain", "Ended", "Error", "Gap", "HistoryPage", "Joined", "Left", "Message",
    "Position", "PresencePage", "PresentUser", "Reconnecting", "Room", "RoomEvent", "Scheduled", "Skipped", "SluiceError",
    "Stale", "Stored", "Subscribed", "Token", "Unsubscribed", "connect",
]
